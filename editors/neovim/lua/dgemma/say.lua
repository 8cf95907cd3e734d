--- Messages for the user: one sentence at a time, and those that concern a lasting state only once.
---
--- The screen shows one line at most, since Neovim would ask for ENTER; the whole text is in `:messages`.
local M = {}

---@type table<string, boolean>
local said = {}

local MORE = " \u{2026} (:messages)"
local HIGHLIGHTS = { [vim.log.levels.WARN] = "WarningMsg", [vim.log.levels.ERROR] = "ErrorMsg" }

--- Whether Neovim itself shows notifications, in the command line. Other notifiers have room for a whole text.
---@return boolean
local function is_built_in()
  local source = debug.getinfo(vim.notify, "S").source
  -- Functions compiled into Neovim have no file.
  return source == "?" or source:find("vim/_", 1, true) ~= nil
end

--- Puts a whole text into `:messages`, and on the screen as much of it as fits a line.
---@param text string
---@param level integer
local function notify_long(text, level)
  local before = vim.o.messagesopt
  vim.o.messagesopt = before:gsub("hit%-enter", "wait:0")
  pcall(vim.notify, text, level)
  vim.o.messagesopt = before
  vim.cmd.redraw()
  local room = vim.v.echospace - vim.fn.strdisplaywidth(MORE)
  local shown = vim.fn.printf("%." .. math.max(0, room) .. "S", (text:gsub("%s+", " ")))
  vim.api.nvim_echo({ { shown .. MORE, HIGHLIGHTS[level] } }, false, {})
end

---@param message string
---@param level integer
local function notify(message, level)
  vim.schedule(function()
    local text = "dgemma: " .. message
    -- A message that follows another without a redraw would ask for ENTER.
    vim.cmd.redraw()
    local fits = not text:find("\n") and vim.fn.strdisplaywidth(text) <= vim.v.echospace
    if fits or not is_built_in() then
      vim.notify(text, level, { title = "dgemma" })
    else
      notify_long(text, level)
    end
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

--- Shows a message of the server.
---@param params lsp.ShowMessageParams
function M.from_server(params)
  local level = ({ vim.log.levels.ERROR, vim.log.levels.WARN })[params.type] or vim.log.levels.INFO
  notify((params.message:gsub("^dgemma: ", "")), level)
end

--- Shows an error, once in this Neovim until `forget`.
---@param message string
function M.error_once(message)
  if not said[message] then
    said[message] = true
    M.error(message)
  end
end

--- Allows every message again: the user has restarted the server.
function M.forget()
  said = {}
end

return M
