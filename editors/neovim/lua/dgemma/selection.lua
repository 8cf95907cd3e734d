--- What is selected, as a range of the protocol: characters after `v`, whole lines after `V` and for a range of lines.
local M = {}

---@param bufnr integer
---@param row integer from 0
---@param col integer bytes
---@param encoding string what columns of the protocol count
---@return lsp.Position
local function position(bufnr, row, col, encoding)
  local line = vim.api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1] or ""
  local units = vim.str_utfindex(line, encoding, math.min(col, #line), false)
  return { line = row, character = units }
end

--- The end of a line, without its break.
local LINE_END = math.huge

--- Returns the range that a command was given.
---@param bufnr integer
---@param command { range: integer, line1: integer, line2: integer } what a user command is called with
---@param encoding string
---@return lsp.Range range empty, at the cursor, where the command has none
function M.of_command(bufnr, command, encoding)
  local from, to = vim.api.nvim_buf_get_mark(bufnr, "<"), vim.api.nvim_buf_get_mark(bufnr, ">")
  if command.range == 0 then
    local place = vim.api.nvim_win_get_cursor(0)
    local here = position(bufnr, place[1] - 1, place[2], encoding)
    return { start = here, ["end"] = here }
  end
  local is_selection = from[1] == command.line1 and to[1] == command.line2
  if is_selection and vim.fn.visualmode() == "v" then
    local last = vim.fn.getregionpos(vim.fn.getpos("'<"), vim.fn.getpos("'>"), { type = "v", eol = true })
    local stop = last[#last][2]
    return {
      start = position(bufnr, from[1] - 1, from[2], encoding),
      ["end"] = position(bufnr, stop[2] - 1, stop[3], encoding),
    }
  end
  return {
    start = position(bufnr, command.line1 - 1, 0, encoding),
    ["end"] = position(bufnr, command.line2 - 1, LINE_END, encoding),
  }
end

return M
