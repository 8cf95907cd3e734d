--- The server's `dgemma/status`, as a word for the statusline.
local attached = require("dgemma.attached")
local pause = require("dgemma.pause")
local say = require("dgemma.say")

local M = {}

---@class dgemma.Status
---@field kind "ready"|"loading"|"busy"|"slow"|"inactive"|"error"
---@field message string one line for a person
---@field percent integer load progress
---@field reason? string why it is slow or does nothing
---@field host? string host and port of the engine on another machine; empty for one of this machine
---@field adapter? string repository whose adapter answered last; empty where none did

---@type table<integer, dgemma.Status> by client
local statuses = {}

--- Stores a notification and redraws the statuslines.
---@param status dgemma.Status
---@param client_id integer
---@return boolean became_ready whether answers come from now on that did not before
function M.take(status, client_id)
  local before = statuses[client_id]
  statuses[client_id] = status
  vim.schedule(function()
    vim.cmd.redrawstatus({ bang = true })
    vim.api.nvim_exec_autocmds("User", { pattern = "DgemmaStatus", modeline = false, data = status })
  end)
  if status.kind == "ready" then
    say.forget()
  end
  return status.kind == "ready" and before ~= nil and before.kind == "loading"
end

--- Returns a server's last status; nil before the first.
---@param client_id integer
---@return dgemma.Status?
function M.last(client_id)
  return statuses[client_id]
end

--- Drops the state of a server.
---@param client_id integer
function M.drop(client_id)
  statuses[client_id] = nil
end

--- Returns the text of a statusline for a buffer: empty where the plugin is not active.
---@param bufnr integer
---@return string
function M.text(bufnr)
  local client = attached.client(bufnr)
  if not client then
    return ""
  end
  if pause.is_paused(bufnr) then
    return "dgemma paused"
  end
  local status = M.last(client.id)
  if not status then
    return "dgemma"
  end
  -- A statusline takes `%` for the beginning of an item.
  local where = (status.host or "") ~= "" and (" @" .. status.host:gsub("%%", "%%%%")) or ""
  if status.kind == "loading" then
    return ("dgemma loading %d%%%%"):format(status.percent) .. where
  end
  local learnt = (status.adapter or "") ~= "" and " +" .. vim.fs.basename(status.adapter):gsub("%%", "%%%%") or ""
  return "dgemma " .. status.kind .. where .. learnt
end

return M
