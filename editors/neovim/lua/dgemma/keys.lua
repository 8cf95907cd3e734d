--- The keys: each acts where ghost text is shown, and keeps its earlier mapping everywhere else.
---
--- None is an expression mapping: Neovim evaluates the mapping of a key while the key typed right before it is not in
--- the buffer yet, so the decision may be wrong. Its earlier mapping is fed before keys typed after it.
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
      return accept.take("whole")
    end,
    description = "Accept ghost text",
  },
  accept_word = {
    run = function()
      return accept.take("word")
    end,
    description = "Accept the next word of ghost text",
  },
  accept_line = {
    run = function()
      return accept.take("line")
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

---@param keys string in Neovim's notation of its own
---@param remap boolean whether they are mapped again
---@param escape boolean whether they may hold bytes outside that notation
local function feed(keys, remap, escape)
  vim.api.nvim_feedkeys(keys, remap and "im" or "in", escape)
end

---@param notation string as in `<Tab>`
---@return string
local function from_notation(notation)
  return vim.api.nvim_replace_termcodes(notation, true, true, true)
end

--- Does what a key does without ghost text: the earlier mapping, else the key itself.
---@param lhs string
---@return fun()
local function otherwise(lhs)
  local before = vim.fn.maparg(lhs, "i", false, true)
  if vim.tbl_isempty(before) or before.buffer == 1 then
    return function()
      feed(from_notation(lhs), false, false)
    end
  end
  local remap = before.noremap == 0
  if before.expr == 1 then
    return function()
      local result = before.callback and before.callback() or before.rhs and vim.api.nvim_eval(before.rhs)
      if type(result) == "string" then
        feed(before.replace_keycodes == 1 and from_notation(result) or result, remap, before.replace_keycodes ~= 1)
      end
    end
  end
  return before.callback or function()
    feed(from_notation(before.rhs), remap, false)
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
        if not action.run() then
          fall_back()
        end
      end, { silent = true, desc = "dgemma: " .. action.description })
    end
  end
end

return M
