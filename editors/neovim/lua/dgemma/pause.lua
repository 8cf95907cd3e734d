--- Pauses ghost text, for one buffer or for all present and future ones; the server keeps running.
local attached = require("dgemma.attached")
local say = require("dgemma.say")

local M = {}

--- The state of buffers without `b:dgemma_paused`.
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

--- Enables or disables Neovim's inline completion in a buffer accordingly.
---@param bufnr integer
function M.apply(bufnr)
  vim.lsp.inline_completion.enable(not M.is_paused(bufnr), { bufnr = bufnr })
end

--- Pauses or resumes.
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
