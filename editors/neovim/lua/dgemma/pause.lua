--- Ghost text off and on, for one buffer or for all; the server goes on running.
local say = require("dgemma.say")

local M = {}

---@param bufnr integer? nil for every buffer
function M.toggle(bufnr)
  local filter = bufnr and { bufnr = bufnr } or nil
  local enable = not vim.lsp.inline_completion.is_enabled({ bufnr = bufnr or vim.api.nvim_get_current_buf() })
  for _, each in ipairs(bufnr and { bufnr } or vim.api.nvim_list_bufs()) do
    vim.b[each].dgemma_paused = not enable or nil
  end
  vim.lsp.inline_completion.enable(enable, filter)
  vim.cmd.redrawstatus({ bang = true })
  say.info(("ghost text is %s %s"):format(enable and "on" or "paused", bufnr and "in this buffer" or "everywhere"))
end

return M
