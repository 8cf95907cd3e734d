--- What the user is told: one sentence at a time, and nothing twice that has to be said once only.
---
--- On the screen stands no more than one line holds, since Neovim would ask for ENTER; all of it is in `:messages`.
local M = {}

---@type table<string, boolean>
local said = {}

local MORE = " \u{2026} (:messages)"
local HIGHLIGHTS = { [vim.log.levels.WARN] = "WarningMsg", [vim.log.levels.ERROR] = "ErrorMsg" }

--- Whether Neovim itself shows notifications, in the command line. Others have room for all of a text.
---@return boolean
local function is_built_in()
  local source = debug.getinfo(vim.notify, "S").source
  -- What is compiled into Neovim has no file.
  return source == "?" or source:find("vim/_", 1, true) ~= nil
end

--- Puts a text into `:messages` whole and on the screen as far as a line holds it.
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

--- Says what the server wants to be said.
---@param params lsp.ShowMessageParams
function M.from_server(params)
  local level = ({ vim.log.levels.ERROR, vim.log.levels.WARN })[params.type] or vim.log.levels.INFO
  notify((params.message:gsub("^dgemma: ", "")), level)
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
