--- Filling a selection: asks the server, shows progress, lets the user choose, and inserts one text.
---
--- That is one undo step. A buffer that was changed meanwhile is left as it is.
local attached = require("dgemma.attached")
local progress = require("dgemma.progress")
local say = require("dgemma.say")
local undo = require("dgemma.undo")

local M = {}

local REQUEST_CANCELLED = -32800

---@class dgemma.FillRequest the parameters of `dgemma/fill`
---@field textDocument { uri: string, version: integer }
---@field range lsp.Range
---@field kind "selection"|"description"|"placeholder"
---@field workDoneToken? string

---@class dgemma.FillCandidate
---@field newText string
---@field label string
---@field score number probability of being right

---@class dgemma.FillResult
---@field version integer
---@field range lsp.Range
---@field candidates dgemma.FillCandidate[] best first
---@field message string why there is none, and what to do

---@class dgemma.Fill one that runs
---@field client vim.lsp.Client
---@field id integer of the request
---@field token string of its progress
---@field bar dgemma.Progress

---@type table<integer, dgemma.Fill> by buffer
local running = {}

--- The key that cancels a running fill; set by `setup`.
---@type string|false
M.cancel_key = false

---@param bufnr integer
---@param text string
---@param outcome "success"|"failed"|"cancel"
local function finish(bufnr, text, outcome)
  local fill = running[bufnr]
  if not fill then
    return
  end
  running[bufnr] = nil
  fill.bar:finish(text, outcome)
  if M.cancel_key and vim.api.nvim_buf_is_valid(bufnr) then
    pcall(vim.keymap.del, "n", M.cancel_key, { buffer = bufnr })
  end
end

---@param bufnr integer
---@param tick integer changedtick of the text that was asked about
---@return string? problem why nothing may be put in
local function obstacle(bufnr, tick)
  if not vim.api.nvim_buf_is_loaded(bufnr) then
    return "the file was closed while the fill was computed; nothing was changed"
  elseif vim.api.nvim_buf_get_changedtick(bufnr) ~= tick then
    return "the text was changed while the fill was computed; nothing was put in: run it again"
  elseif not vim.bo[bufnr].modifiable then
    return "this buffer cannot be changed (:help 'modifiable'); nothing was put in"
  elseif vim.bo[bufnr].readonly then
    return "this file is read-only (:help 'readonly'); nothing was put in"
  end
end

---@param bufnr integer
---@param tick integer
---@param range lsp.Range
---@param candidate dgemma.FillCandidate
---@param encoding string
local function apply(bufnr, tick, range, candidate, encoding)
  local problem = obstacle(bufnr, tick)
  if problem then
    say.warn(problem)
    return
  end
  undo.break_step(bufnr)
  vim.lsp.util.apply_text_edits({ { range = range, newText = candidate.newText } }, bufnr, encoding)
  undo.break_step(bufnr)
end

---@param bufnr integer
---@param tick integer
---@param result dgemma.FillResult
---@param encoding string
local function offer(bufnr, tick, result, encoding)
  local problem = obstacle(bufnr, tick)
  if problem or #result.candidates == 0 then
    finish(bufnr, "nothing put in", "failed")
    say.warn(problem or result.message)
    return
  end
  finish(bufnr, "done", "success")
  if #result.candidates == 1 then
    apply(bufnr, tick, result.range, result.candidates[1], encoding)
    return
  end
  vim.ui.select(result.candidates, {
    prompt = "Fill with",
    kind = "dgemma.fill",
    format_item = function(candidate)
      return ("%2.0f %%  %s"):format(100 * candidate.score, candidate.label)
    end,
  }, function(candidate)
    if candidate then
      apply(bufnr, tick, result.range, candidate, encoding)
    end
  end)
end

--- Asks for a fill and inserts it. A fill that runs in the same buffer is cancelled.
---@param bufnr integer
---@param request dgemma.FillRequest its version decides: another text is not touched
function M.run(bufnr, request)
  local client = attached.capable_client(bufnr)
  local tick = vim.api.nvim_buf_get_changedtick(bufnr)
  if not client then
    return
  end
  local version = vim.lsp.util.buf_versions[bufnr]
  local problem = obstacle(bufnr, tick)
  if request.textDocument.version ~= version then
    problem = "the text was changed since the fill was offered; nothing was put in: run it again"
  end
  if problem then
    say.warn(problem)
    return
  end
  M.cancel(bufnr)
  local token = ("dgemma-fill-%d-%d"):format(bufnr, vim.uv.hrtime())
  local params = vim.tbl_extend("force", request, { workDoneToken = token })
  ---@diagnostic disable-next-line: param-type-mismatch a method of our own
  local sent, id = client:request("dgemma/fill", params, function(err, result)
    local current = running[bufnr]
    if not current or current.token ~= token then
      return
    end
    if err then
      local was_cancelled = err.code == REQUEST_CANCELLED
      finish(bufnr, was_cancelled and "cancelled" or "failed", was_cancelled and "cancel" or "failed")
      if not was_cancelled then
        say.error(("the server could not fill it (%s); nothing was changed"):format(err.message))
      end
      return
    end
    offer(bufnr, tick, result, client.offset_encoding)
  end, bufnr)
  if not sent or not id then
    say.error("the server does not answer; :DgemmaRestart starts it again")
    return
  end
  local hint = M.cancel_key and (" (%s cancels)"):format(M.cancel_key) or ""
  running[bufnr] = { client = client, id = id, token = token, bar = progress.begin("dgemma", "filling" .. hint) }
  if M.cancel_key then
    vim.keymap.set("n", M.cancel_key, function()
      M.cancel(bufnr)
    end, { buffer = bufnr, desc = "dgemma: cancel the fill" })
  end
end

--- Cancels the fill of a buffer.
---@param bufnr integer
---@return boolean cancelled false where none runs
function M.cancel(bufnr)
  local fill = running[bufnr]
  if not fill then
    return false
  end
  fill.client:cancel_request(fill.id)
  finish(bufnr, "cancelled", "cancel")
  return true
end

--- Shows the progress of a fill.
---@param token string|integer
---@param value { message?: string, percentage?: integer }
function M.report(token, value)
  for _, fill in pairs(running) do
    if fill.token == token then
      fill.bar:report(value.message or "filling", value.percentage)
    end
  end
end

--- Ends the fills of a server that is gone.
---@param client_id integer
function M.lost(client_id)
  for bufnr, fill in pairs(running) do
    if fill.client.id == client_id then
      finish(bufnr, "the server has ended", "failed")
    end
  end
end

return M
