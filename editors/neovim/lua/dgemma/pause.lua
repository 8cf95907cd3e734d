--- Ghost text off and on, for one buffer or for all, now and for those to come; the server goes on running.
local attached = require("dgemma.attached")
local say = require("dgemma.say")

local M = {}

--- What holds where a buffer's own `b:dgemma_paused` says nothing.
local everywhere = false

--- Whether the user wants no ghost text in a buffer.
---@param bufnr integer
---@return boolean
function M.is_paused(bufnr)
  local own = vim.b[bufnr].dgemma_paused
  if own == nil then
    return everywhere
  end
  return own
end

--- Lets Neovim's inline completion of a buffer be as the user wants it.
---@param bufnr integer
function M.apply(bufnr)
  vim.lsp.inline_completion.enable(not M.is_paused(bufnr), { bufnr = bufnr })
end

--- Pauses or goes on.
---@param bufnr integer? nil for every buffer
function M.toggle(bufnr)
  local paused = not M.is_paused(bufnr or vim.api.nvim_get_current_buf())
  if bufnr then
    vim.b[bufnr].dgemma_paused = paused
  else
    everywhere = paused
  end
  for _, each in ipairs(bufnr and { bufnr } or vim.api.nvim_list_bufs()) do
    if not bufnr then
      vim.b[each].dgemma_paused = nil
    end
    if attached.client(each) then
      M.apply(each)
    end
  end
  vim.cmd.redrawstatus({ bang = true })
  say.info(("ghost text is %s %s"):format(paused and "paused" or "on", bufnr and "in this buffer" or "everywhere"))
end

return M
