--- Undo steps: text that the plugin inserts is a step of its own, apart from typing before and after.
local M = {}

--- Ends the undo step that is open.
---@param bufnr integer
function M.break_step(bufnr)
  -- Setting the option ends the step, also to the value that it has.
  vim.bo[bufnr].undolevels = vim.bo[bufnr].undolevels
end

return M
