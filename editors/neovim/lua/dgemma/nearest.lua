--- The likely intended name: the one in a list with the smallest edit distance.
local M = {}

--- Returns the Levenshtein distance of two words.
---@param from string
---@param to string
---@return integer
local function edits(from, to)
  local row = {}
  for column = 0, #to do
    row[column] = column
  end
  for line = 1, #from do
    local diagonal = row[0]
    row[0] = line
    for column = 1, #to do
      local above = row[column]
      local replaced = diagonal + (from:byte(line) == to:byte(column) and 0 or 1)
      row[column] = math.min(above + 1, row[column - 1] + 1, replaced)
      diagonal = above
    end
  end
  return row[#to]
end

--- Returns the nearest of `names`; the first in alphabetical order where several are as near.
---@param word string
---@param names string[] at least one
---@return string
function M.nearest(word, names)
  local sorted = vim.fn.sort(vim.deepcopy(names)) --[[@as string[] ]]
  local best, fewest = sorted[1], math.huge
  for _, name in ipairs(sorted) do
    local needed = edits(word:lower(), name:lower())
    if needed < fewest then
      best, fewest = name, needed
    end
  end
  return best
end

return M
