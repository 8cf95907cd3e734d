--- One long request to the server, at most one at a time: progress, end and cancellation.
local progress = require("dgemma.progress")
local say = require("dgemma.say")

local M = {}

---@class dgemma.Running
---@field client vim.lsp.Client
---@field id integer of the request
---@field token string
---@field bar dgemma.Progress

---@class dgemma.Work
---@field method string
---@field title string of the progress message
---@field already string said where one runs already
---@field stopped string said once it was cancelled
---@field running dgemma.Running?
local Work = {}
Work.__index = Work

---@param said { method: string, title: string, already: string, stopped: string }
---@return dgemma.Work
function M.new(said)
  return setmetatable(said, Work)
end

---@param text string
---@param outcome "success"|"failed"|"cancel"
function Work:finish(text, outcome)
  if self.running then
    self.running.bar:finish(text, outcome)
    self.running = nil
  end
end

--- Asks the server, and shows the result.
---@param client vim.lsp.Client
---@param params table
---@param on_result? fun(result: table)
function Work:run(client, params, on_result)
  if self.running then
    say.info(self.already)
    return
  end
  local token = ("dgemma-work-%d"):format(vim.uv.hrtime())
  local question = vim.tbl_extend("force", params, { workDoneToken = token })
  ---@diagnostic disable-next-line: param-type-mismatch a method of our own
  local sent, id = client:request(self.method, question, function(err, result)
    if not self.running or self.running.token ~= token then
      return
    end
    if not err then
      self:finish("done", "success")
      say.info(result.message)
      if on_result then
        on_result(result)
      end
    else
      self:finish("failed", "failed")
      say.error(err.message)
    end
  end)
  if sent and id then
    self.running = { client = client, id = id, token = token, bar = progress.begin(self.title, "starting") }
  else
    say.warn("the server does not run; :checkhealth dgemma says why")
  end
end

--- Stops the work.
---@return boolean whether any ran
function Work:cancel()
  if not self.running then
    return false
  end
  self.running.client:cancel_request(self.running.id)
  -- Neovim drops the answer to a cancelled request.
  self:finish("cancelled", "cancel")
  say.info(self.stopped)
  return true
end

--- Shows the progress of the work.
---@param token string|integer
---@param value { message?: string, percentage?: integer }
function Work:report(token, value)
  if self.running and self.running.token == token and value.message then
    self.running.bar:report(value.message, value.percentage)
  end
end

--- Ends the work of a server that is gone.
---@param client_id integer
function Work:lost(client_id)
  if self.running and self.running.client.id == client_id then
    self:finish("the server has ended", "failed")
  end
end

return M
