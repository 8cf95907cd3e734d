--- How much of a suggestion one key accepts: all of it, its next word, or the rest of its line. Strings only.
local M = {}

---@alias dgemma.Part "whole"|"word"|"line"

-- Every byte of a character beyond ASCII counts as a letter, so that no character is cut in two.
local WORD = "^%s*[%w_\128-\255]+"
local SIGNS = "^%s*[^%w_%s\128-\255]+"

--- Returns how many bytes of `text` are taken, counted from its start.
---@param text string what would be inserted as a whole
---@param done integer bytes of it that stand in the buffer already
---@param part dgemma.Part
---@return integer
function M.length(text, done, part)
  local rest = text:sub(done + 1)
  if part == "word" then
    local piece = rest:match(WORD) or rest:match(SIGNS)
    return piece and done + #piece or #text
  elseif part == "line" then
    local stop = rest:find("\n", 2, true)
    return stop and done + stop - 1 or #text
  end
  return #text
end

return M
