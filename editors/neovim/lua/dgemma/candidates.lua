--- Going through the candidates: the server returns several only for a request by hand, which the first step makes.
local answers = require("dgemma.answers")

local M = {}

--- Shows the candidate that is `count` further on.
---@param count integer negative goes back
---@return boolean asked false where nothing is shown
function M.cycle(count)
  local bufnr = vim.api.nvim_get_current_buf()
  local asked = answers.shown(bufnr)
  if not asked or not answers.visible(bufnr) then
    return false
  end
  vim.schedule(function()
    if asked.by_hand then
      vim.lsp.inline_completion.select({ bufnr = bufnr, count = count })
      return
    end
    answers.ask_by_hand(bufnr, function(num_items)
      vim.lsp.inline_completion.select({ bufnr = bufnr, count = num_items > 1 and count or 0 })
    end)
  end)
  return true
end

return M
