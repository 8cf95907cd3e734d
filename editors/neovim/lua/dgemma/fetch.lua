--- The chosen model where it is not there yet: offered once, and fetched by the server, with its progress.
local attached = require("dgemma.attached")
local progress = require("dgemma.progress")
local say = require("dgemma.say")

local M = {}

---@class dgemma.MissingModel
---@field name string
---@field title string
---@field numBytes integer of the download
---@field licence string
---@field message string says that it is not there, and what to do

---@class dgemma.Fetch
---@field client vim.lsp.Client
---@field id integer of the request
---@field token string
---@field bar dgemma.Progress

---@type dgemma.Fetch?
local running

---@type table<string, boolean> by name, in this Neovim
local offered = {}

---@param text string
---@param outcome "success"|"failed"|"cancel"
local function finish(text, outcome)
  if running then
    running.bar:finish(text, outcome)
    running = nil
  end
end

--- Fetches the model that the settings choose.
---@param client vim.lsp.Client
function M.run(client)
  if running then
    say.info("the model is being fetched already; :DgemmaCancel stops that")
    return
  end
  local token = ("dgemma-fetch-%d"):format(vim.uv.hrtime())
  ---@diagnostic disable-next-line: param-type-mismatch a method of our own
  local sent, id = client:request("dgemma/fetchModel", { workDoneToken = token }, function(err, result)
    if not running or running.token ~= token then
      return
    end
    if not err then
      finish("done", "success")
      say.info(result.message)
    else
      finish("failed", "failed")
      say.error(err.message)
    end
  end)
  if sent and id then
    running = { client = client, id = id, token = token, bar = progress.begin("Fetching a model", "starting") }
  else
    say.warn("the server does not run; :checkhealth dgemma says why")
  end
end

--- Fetches through the server of a buffer.
---@param bufnr integer
function M.run_here(bufnr)
  local client = attached.capable_client(bufnr)
  if client then
    M.run(client)
  end
end

--- Stops the download; what has come is kept.
---@return boolean whether one ran
function M.cancel()
  if not running then
    return false
  end
  running.client:cancel_request(running.id)
  -- Neovim keeps the answer to a cancelled request to itself.
  finish("cancelled", "cancel")
  say.info("what has come of the model is kept; :DgemmaFetch goes on with it")
  return true
end

--- Shows how far a download is.
---@param token string|integer
---@param value { message?: string, percentage?: integer }
function M.report(token, value)
  if running and running.token == token and value.message then
    running.bar:report(value.message, value.percentage)
  end
end

--- Ends the download of a server that is gone.
---@param client_id integer
function M.lost(client_id)
  if running and running.client.id == client_id then
    finish("the server has ended", "failed")
  end
end

---@param model dgemma.MissingModel
---@param client vim.lsp.Client
local function ask(model, client)
  local size = ("%.0f MB"):format(model.numBytes / 1e6)
  local choices = {
    { text = ("Fetch it (%s, %s)"):format(size, model.licence), fetch = true },
    { text = "No, and do not ask again (:DgemmaFetch fetches it later)", fetch = false },
  }
  vim.ui.select(choices, {
    prompt = ("dgemma: the model %s (%s) is not there yet"):format(model.name, model.title),
    kind = "dgemma.fetch",
    format_item = function(choice)
      return choice.text
    end,
  }, function(choice)
    if choice and choice.fetch then
      M.run(client)
    elseif choice then
      ---@diagnostic disable-next-line: param-type-mismatch a method of our own
      client:request("dgemma/declineModel", { name = model.name }, function() end)
    end
  end)
end

--- Offers a model once in this Neovim; the question waits while the user types, and for a screen to appear on.
---@param model dgemma.MissingModel
---@param client vim.lsp.Client
function M.offer(model, client)
  if offered[model.name] then
    return
  end
  offered[model.name] = true
  local function ask_or_wait()
    local event, pattern
    if #vim.api.nvim_list_uis() == 0 then
      event, pattern = "UIEnter", "*" -- a script would wait for an answer that nobody can give
    elseif not vim.api.nvim_get_mode().mode:match("^n") then
      event, pattern = "ModeChanged", "*:n"
    else
      ask(model, client)
      return
    end
    vim.api.nvim_create_autocmd(event, {
      pattern = pattern,
      once = true,
      desc = "dgemma: offer to fetch the model",
      callback = vim.schedule_wrap(ask_or_wait),
    })
  end
  vim.schedule(ask_or_wait)
end

return M
