--- What the user is told: one sentence at a time, and nothing twice that has to be said once only.
local M = {}

---@type table<string, boolean>
local said = {}

---@param message string
---@param level integer
local function notify(message, level)
  vim.schedule(function()
    -- A message that follows another without a redraw would ask for ENTER.
    vim.cmd.redraw()
    vim.notify("dgemma: " .. message, level, { title = "dgemma" })
  end)
end

---@param message string
function M.info(message)
  notify(message, vim.log.levels.INFO)
end

---@param message string
function M.warn(message)
  notify(message, vim.log.levels.WARN)
end

---@param message string
function M.error(message)
  notify(message, vim.log.levels.ERROR)
end

--- Says it as an error, but not again in this Neovim until `forget`.
---@param message string
function M.error_once(message)
  if not said[message] then
    said[message] = true
    M.error(message)
  end
end

--- Lets everything be said again: the user has started anew.
function M.forget()
  said = {}
end

return M
