--- The denoising of an answer, drawn at the cursor: every draft of the canvas as virtual text, coloured by confidence.
--- Changes no buffer.
local answers = require("dgemma.answers")
local attached = require("dgemma.attached")
local say = require("dgemma.say")

local M = {}

local NAMESPACE = vim.api.nvim_create_namespace("dgemma.denoise")

-- Confidences from which a level holds, as in editors/vscode/src/draftParts.ts.
local SURE = 0.75
local LIKELY = 0.4

---@class dgemma.DraftSpan
---@field text string
---@field confidence number 0 to 1
---@field settled boolean

---@class dgemma.Draft
---@field token string
---@field step integer
---@field stepsLimit integer
---@field elapsedMs number
---@field spans dgemma.DraftSpan[]

---@class dgemma.Denoised the answer to `dgemma/denoise`
---@field items lsp.InlineCompletionItem[]
---@field finish string why the engine stopped
---@field steps integer
---@field elapsedMs number
---@field message string why nothing was asked; empty where the engine answered

---@class dgemma.Preview one that is on the screen
---@field token string
---@field bufnr integer
---@field row integer from 0
---@field col integer bytes
---@field client vim.lsp.Client
---@field beside boolean whether it accompanies ghost text, which goes before it
---@field id integer? of the request while it runs

---@type dgemma.Preview?
local preview

local HIGHLIGHTS = {
  DgemmaSettled = "DiagnosticOk",
  DgemmaSure = "DiagnosticInfo",
  DgemmaLikely = "DiagnosticWarn",
  DgemmaUnsure = "NonText",
  DgemmaStep = "Comment",
}

--- Defines the highlight groups, unless a colour scheme or the user has.
function M.define_highlights()
  for name, link in pairs(HIGHLIGHTS) do
    vim.api.nvim_set_hl(0, name, { link = link, default = true })
  end
end

---@param span dgemma.DraftSpan
---@return string
local function highlight(span)
  if span.settled then
    return "DgemmaSettled"
  end
  return span.confidence >= SURE and "DgemmaSure" or span.confidence >= LIKELY and "DgemmaLikely" or "DgemmaUnsure"
end

---@param spans dgemma.DraftSpan[]
---@return [string, string][][] lines of coloured pieces
local function coloured(spans)
  local lines = { {} } ---@type [string, string][][]
  for _, span in ipairs(spans) do
    for number, piece in ipairs(vim.split(span.text, "\n", { plain = true })) do
      if number > 1 then
        table.insert(lines, {})
      end
      if piece ~= "" then
        table.insert(lines[#lines], { piece, highlight(span) })
      end
    end
  end
  return lines
end

--- Removes the drawing, and cancels the request if it still runs.
function M.clear()
  local old = preview
  preview = nil
  if not old then
    return
  end
  if old.id then
    old.client:cancel_request(old.id)
  end
  if vim.api.nvim_buf_is_valid(old.bufnr) then
    vim.api.nvim_buf_clear_namespace(old.bufnr, NAMESPACE, 0, -1)
  end
end

---@param spans dgemma.DraftSpan[]
---@param note string
local function draw(spans, note)
  local now = assert(preview)
  local lines = coloured(spans)
  table.insert(lines[#lines], { " " .. note, "DgemmaStep" })
  vim.api.nvim_buf_set_extmark(now.bufnr, NAMESPACE, now.row, now.col, {
    id = 1,
    virt_text = lines[1],
    virt_text_pos = "inline",
    virt_lines = vim.list_slice(lines, 2),
    strict = false,
  })
end

--- Draws a draft in place of the one before.
---@param draft dgemma.Draft
function M.draw(draft)
  local now = preview
  if not now or draft.token ~= now.token or not vim.api.nvim_buf_is_loaded(now.bufnr) then
    return
  end
  if now.beside and answers.visible(now.bufnr) then
    return
  end
  draw(draft.spans, ("step %d/%d, %d ms"):format(draft.step, draft.stepsLimit, draft.elapsedMs))
end

---@param client vim.lsp.Client
---@param bufnr integer
---@param position lsp.Position
---@param beside boolean
---@param on_end fun(result: dgemma.Denoised?, err: lsp.ResponseError?)
local function begin(client, bufnr, position, beside, on_end)
  M.clear()
  local line = vim.api.nvim_buf_get_lines(bufnr, position.line, position.line + 1, false)[1] or ""
  local started = {
    token = ("dgemma-denoise-%d"):format(vim.uv.hrtime()),
    bufnr = bufnr,
    row = position.line,
    col = vim.str_byteindex(line, client.offset_encoding, position.character, false),
    client = client,
    beside = beside,
  } ---@type dgemma.Preview
  preview = started
  local params = {
    textDocument = { uri = vim.uri_from_bufnr(bufnr), version = vim.lsp.util.buf_versions[bufnr] },
    position = position,
    token = started.token,
  }
  ---@diagnostic disable-next-line: param-type-mismatch a method of our own
  local _, id = client:request("dgemma/denoise", params, function(err, result)
    started.id = nil
    if preview == started then
      on_end(result, err)
    end
  end, bufnr)
  started.id = id
end

---@param bufnr integer
local function clear_on_change(bufnr)
  local events = { "InsertLeave", "TextChanged", "TextChangedI", "CursorMoved", "CursorMovedI", "BufLeave" }
  vim.api.nvim_create_autocmd(events, {
    group = vim.api.nvim_create_augroup("dgemma.denoise", { clear = true }),
    buffer = bufnr,
    once = true,
    desc = "dgemma: remove the view of the canvas",
    callback = M.clear,
  })
end

--- Draws the final suggestion, if there is one.
---@param result dgemma.Denoised
local function draw_outcome(result)
  local item, now = result.items[1], assert(preview)
  local note = ("%d steps, %d ms (%s)"):format(result.steps, result.elapsedMs, result.finish)
  if not item or type(item.insertText) ~= "string" then
    say.info("nothing that is likely enough after " .. note)
    return
  end
  local line = vim.api.nvim_buf_get_lines(now.bufnr, now.row, now.row + 1, false)[1] or ""
  local from = vim.str_byteindex(line, now.client.offset_encoding, item.range.start.character, false)
  local text = item.insertText:sub(now.col - from + 1)
  draw({ { text = text, confidence = 1, settled = true } }, "offered after " .. note)
end

--- Shows the denoising of an answer at the cursor; the result stays until the cursor moves or the text changes.
function M.show()
  local bufnr = vim.api.nvim_get_current_buf()
  local client = attached.capable_client(bufnr)
  if not client then
    return
  end
  -- Ghost text would stand at the same place.
  vim.api.nvim_buf_clear_namespace(bufnr, answers.NAMESPACE, 0, -1)
  local position = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  begin(client, bufnr, position, false, function(result, err)
    if err or not result then
      M.clear()
      say.warn(("the server shows no denoising (%s)"):format(err and err.message or "no answer"))
    elseif result.steps == 0 then
      M.clear()
      say.warn(result.message ~= "" and result.message or "there is nothing to denoise here")
    else
      draw_outcome(result)
    end
  end)
  clear_on_change(bufnr)
end

--- Shows the denoising beside a request for ghost text, until either answer comes.
---@param client vim.lsp.Client
---@param bufnr integer
---@param position lsp.Position
function M.accompany(client, bufnr, position)
  begin(client, bufnr, position, true, M.clear)
  clear_on_change(bufnr)
end

--- Removes the drawing where it accompanied ghost text that is now shown.
---@param bufnr integer
function M.give_way(bufnr)
  if preview and preview.beside and preview.bufnr == bufnr and answers.visible(bufnr) then
    M.clear()
  end
end

return M
