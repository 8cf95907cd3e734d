--- The keys: each does its work where ghost text is shown, and what it did before everywhere else.
local accept = require("dgemma.accept")
local candidates = require("dgemma.candidates")

local M = {}

---@class dgemma.KeyAction
---@field run fun(): boolean whether it had anything to do
---@field description string

---@type table<string, dgemma.KeyAction>
local ACTIONS = {
  accept = {
    run = function()
      return accept.accept("whole")
    end,
    description = "Accept ghost text",
  },
  accept_word = {
    run = function()
      return accept.accept("word")
    end,
    description = "Accept the next word of ghost text",
  },
  accept_line = {
    run = function()
      return accept.accept("line")
    end,
    description = "Accept the next line of ghost text",
  },
  next = {
    run = function()
      return candidates.cycle(1)
    end,
    description = "Show the next candidate",
  },
  previous = {
    run = function()
      return candidates.cycle(-1)
    end,
    description = "Show the candidate before",
  },
  dismiss = { run = accept.dismiss, description = "Hide ghost text" },
}

--- What a key is when there is no ghost text: the mapping that was there before, else the key itself.
---@param lhs string
---@return fun(): string
local function otherwise(lhs)
  local before = vim.fn.maparg(lhs, "i", false, true)
  if vim.tbl_isempty(before) or before.buffer == 1 then
    return function()
      return lhs
    end
  end
  if before.expr == 1 then
    return before.callback or function()
      return vim.api.nvim_eval(before.rhs)
    end
  end
  return function()
    if before.callback then
      vim.schedule(before.callback)
    else
      local typed = vim.api.nvim_replace_termcodes(before.rhs, true, true, true)
      vim.api.nvim_feedkeys(typed, before.noremap == 1 and "n" or "m", false)
    end
    return ""
  end
end

--- Maps the keys that the user did not switch off.
---@param keys dgemma.Keys
function M.map(keys)
  for name, action in pairs(ACTIONS) do
    local lhs = keys[name]
    if lhs then
      local fall_back = otherwise(lhs)
      vim.keymap.set("i", lhs, function()
        return action.run() and "" or fall_back()
      end, { expr = true, silent = true, desc = "dgemma: " .. action.description })
    end
  end
end

return M
