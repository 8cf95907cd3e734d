--- The client of a buffer, and whether it may be asked for more than ghost text.
local protocol = require("dgemma.protocol")
local say = require("dgemma.say")

local M = {}

--- The client's name in |vim.lsp.config()|.
M.NAME = "dgemma"

---@param bufnr integer
---@return vim.lsp.Client?
function M.client(bufnr)
  return vim.lsp.get_clients({ bufnr = bufnr, name = M.NAME })[1]
end

--- Returns the client of a buffer if it supports this plugin's protocol; else tells the user what to do.
---@param bufnr integer
---@return vim.lsp.Client?
function M.capable_client(bufnr)
  local client = M.client(bufnr)
  if not client then
    say.warn("no server is attached to this buffer; :checkhealth dgemma says why")
    return nil
  end
  local problem = protocol.problem(client.server_capabilities, client.server_info)
  if problem then
    say.error(problem)
    return nil
  end
  return client
end

return M
