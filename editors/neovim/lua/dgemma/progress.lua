--- One long piece of work as Neovim's progress message: its percentage, and how it ended.
local M = {}

---@class dgemma.Progress
---@field id integer|string of the message
---@field title string
local Progress = {}
Progress.__index = Progress

---@param self dgemma.Progress
---@param text string
---@param status "running"|"success"|"failed"|"cancel"
---@param percent integer?
local function show(self, text, status, percent)
  self.id = vim.api.nvim_echo({ { text } }, false, {
    id = self.id,
    kind = "progress",
    source = "dgemma",
    title = self.title,
    status = status,
    percent = percent,
  })
end

--- Shows the beginning.
---@param title string
---@param text string
---@return dgemma.Progress
function M.begin(title, text)
  local progress = setmetatable({ title = title }, Progress)
  show(progress, text, "running", 0)
  return progress
end

---@param text string
---@param percent integer? 0 to 100
function Progress:report(text, percent)
  show(self, text, "running", percent)
end

---@param text string
---@param status "success"|"failed"|"cancel"
function Progress:finish(text, status)
  show(self, text, status, nil)
end

return M
