--- Filters the server's answers for Neovim's ghost text: only items that still fit the text are passed on.
---
--- `vim.lsp.inline_completion` draws every answer and does not store for which text it was made: a late answer replaces
--- a newer one, and an item stays on the screen, and can be accepted, after something else was typed. Wrapping the
--- client's `request` is the one place where request and answer are available together.
local M = {}

local METHOD = "textDocument/inlineCompletion"
local INVOKED = vim.lsp.protocol.InlineCompletionTriggerKind.Invoked

--- The namespace of Neovim's own ghost text.
M.NAMESPACE = vim.api.nvim_create_namespace("nvim.lsp.inline_completion")

---@class dgemma.Asked a request, and the cursor position that it was made for
---@field tick integer the buffer's changedtick
---@field row integer from 0
---@field col integer bytes left of the cursor
---@field line string the cursor's line
---@field num_lines integer
---@field by_hand boolean whether the user asked for several answers
---@field items lsp.InlineCompletionItem[] of the answer; empty before it comes
---@field deliver fun(items: lsp.InlineCompletionItem[]) shows items as if they were the answer
---@field encoding string what columns of the items count

---@class dgemma.Watched the requests of one buffer
---@field newest dgemma.Asked? the last request
---@field shown dgemma.Asked? the request whose answer is on the screen
---@field by_hand? fun(num_items: integer) if set, the next request is by hand, and this is called with its answer

---@type table<integer, dgemma.Watched>
local buffers = {}

---@param bufnr integer
---@return dgemma.Watched
local function watched(bufnr)
  buffers[bufnr] = buffers[bufnr] or {}
  return buffers[bufnr]
end

---@param bufnr integer
---@return integer? row from 0
---@return integer? col bytes
local function cursor(bufnr)
  local window = vim.api.nvim_get_current_win()
  if vim.api.nvim_win_get_buf(window) ~= bufnr then
    window = vim.fn.bufwinid(bufnr)
  end
  if window == -1 then
    return nil
  end
  local place = vim.api.nvim_win_get_cursor(window)
  return place[1] - 1, place[2]
end

---@param bufnr integer
---@param row integer
---@return string
local function line_at(bufnr, row)
  return vim.api.nvim_buf_get_lines(bufnr, row, row + 1, false)[1] or ""
end

---@class dgemma.Fit where an item belongs in the current text
---@field row integer from 0
---@field from integer first byte that it replaces
---@field to integer byte after the last one that it replaces
---@field cursor integer bytes left of the cursor
---@field text string that it inserts
---@field typed integer bytes of `text` that already stand left of the cursor

--- Returns where an item belongs in the current text, or nil where text typed since contradicts it.
---@param bufnr integer
---@param asked dgemma.Asked
---@param item { insertText: string|lsp.StringValue, range?: lsp.Range }
---@return dgemma.Fit?
function M.fit(bufnr, asked, item)
  local text = item.insertText
  local row, col = cursor(bufnr)
  if type(text) ~= "string" or row ~= asked.row or vim.api.nvim_buf_line_count(bufnr) ~= asked.num_lines then
    return nil
  end
  local line, rest = line_at(bufnr, row), asked.line:sub(asked.col + 1)
  local num_typed = #line - #asked.line
  if col ~= asked.col + num_typed or num_typed < 0 then
    return nil
  end
  if line:sub(1, asked.col) ~= asked.line:sub(1, asked.col) or line:sub(col + 1) ~= rest then
    return nil
  end
  local from, to = asked.col, asked.col
  if item.range then
    from = vim.str_byteindex(asked.line, asked.encoding, item.range.start.character, false)
    to = vim.str_byteindex(asked.line, asked.encoding, item.range["end"].character, false)
  end
  local head = line:sub(from + 1, col)
  local begins = vim.startswith(text, head)
  if num_typed > 0 and not begins then
    return nil
  end
  return {
    row = row,
    from = from,
    to = to + num_typed,
    cursor = col,
    text = text,
    typed = begins and #head or 0,
  }
end

--- Whether ghost text is on the screen.
---@param bufnr integer
---@return boolean
function M.visible(bufnr)
  return #vim.api.nvim_buf_get_extmarks(bufnr, M.NAMESPACE, 0, -1, { limit = 1 }) > 0
end

--- The question whose answer is on the screen.
---@param bufnr integer
---@return dgemma.Asked?
function M.shown(bufnr)
  return watched(bufnr).shown
end

--- Hides ghost text that no longer fits: Neovim would leave it until the next answer.
---@param bufnr integer
function M.hide_unfit(bufnr)
  local asked = M.shown(bufnr)
  -- Without an item of ours, the ghost text on the screen is another server's.
  if not vim.api.nvim_buf_is_valid(bufnr) or not asked or #asked.items == 0 or not M.visible(bufnr) then
    return
  end
  for _, item in ipairs(asked.items) do
    if M.fit(bufnr, asked, item) then
      return
    end
  end
  vim.api.nvim_buf_clear_namespace(bufnr, M.NAMESPACE, 0, -1)
end

---@param bufnr integer
---@param asked dgemma.Asked
---@param items lsp.InlineCompletionItem[]
---@return boolean
local function is_late(bufnr, asked, items)
  if not vim.api.nvim_buf_is_loaded(bufnr) or watched(bufnr).newest ~= asked then
    return true
  end
  if vim.api.nvim_buf_get_changedtick(bufnr) == asked.tick then
    return false
  end
  return not (items[1] and M.fit(bufnr, asked, items[1]))
end

---@param client vim.lsp.Client
---@param bufnr integer
---@param params lsp.InlineCompletionParams
---@return dgemma.Asked
local function question(client, bufnr, params)
  local row = params.position.line
  local line = line_at(bufnr, row)
  return {
    tick = vim.api.nvim_buf_get_changedtick(bufnr),
    row = row,
    col = vim.str_byteindex(line, client.offset_encoding, params.position.character, false),
    line = line,
    num_lines = vim.api.nvim_buf_line_count(bufnr),
    by_hand = false,
    items = {},
    deliver = function() end,
    encoding = client.offset_encoding,
  }
end

--- Wraps a client's requests and answers from now on.
---@param client vim.lsp.Client
---@param on_asked fun(bufnr: integer, position: lsp.Position) called with every request for ghost text
---@param on_answered fun(bufnr: integer) called when an answer was passed on
function M.watch(client, on_asked, on_answered)
  local request = client.request
  ---@diagnostic disable-next-line: duplicate-set-field
  client.request = function(self, method, params, handler, bufnr)
    if method ~= METHOD or not handler or not params then
      return request(self, method, params, handler, bufnr)
    end
    bufnr = bufnr and bufnr ~= 0 and bufnr or vim.api.nvim_get_current_buf()
    local state = watched(bufnr)
    local told = state.by_hand
    local asked = question(client, bufnr, params)
    state.newest, state.by_hand = asked, nil
    if told then
      asked.by_hand = true
      params.context.triggerKind = INVOKED
    end
    on_asked(bufnr, params.position)
    return request(self, method, params, function(err, result, ctx)
      local items = result and (result.items or result) or {}
      if err or is_late(bufnr, asked, items) then
        return
      end
      asked.items = items
      asked.deliver = function(others)
        handler(nil, others, ctx)
      end
      state.shown = asked
      handler(nil, items, ctx)
      on_answered(bufnr)
      if told then
        told(#items)
      end
    end, bufnr)
  end
end

--- Shows the rest of an item of which the user accepted a part, at the cursor's new place, until the server answers.
---@param bufnr integer
---@param asked dgemma.Asked
---@param item lsp.InlineCompletionItem the rest, with its range in bytes
function M.continue(bufnr, asked, item)
  local row, col = cursor(bufnr)
  if not row then
    return
  end
  local state = watched(bufnr)
  local line = line_at(bufnr, row)
  local function in_units(bytes)
    return vim.str_utfindex(line, asked.encoding, bytes, false)
  end
  item.range.start.character = in_units(item.range.start.character)
  item.range["end"].character = in_units(item.range["end"].character)
  state.shown = vim.tbl_extend("force", asked, {
    tick = vim.api.nvim_buf_get_changedtick(bufnr),
    row = row,
    col = col,
    line = line,
    num_lines = vim.api.nvim_buf_line_count(bufnr),
    items = { item },
  }) --[[@as dgemma.Asked]]
  state.newest = state.shown
  asked.deliver({ item })
end

--- Makes Neovim ask once more where the cursor is.
---@param bufnr integer
function M.ask_again(bufnr)
  -- Neovim has no function for it. This event of its own group starts the timer that asks.
  local group = ("nvim.lsp.inline_completion:%d"):format(bufnr)
  pcall(vim.api.nvim_exec_autocmds, "CursorMovedI", { group = group, buffer = bufnr })
end

--- Makes Neovim ask once more, by hand: only then does the server return several answers.
---@param bufnr integer
---@param on_answer fun(num_items: integer)
function M.ask_by_hand(bufnr, on_answer)
  watched(bufnr).by_hand = on_answer
  M.ask_again(bufnr)
end

--- Drops the state of a buffer.
---@param bufnr integer
function M.forget(bufnr)
  buffers[bufnr] = nil
end

return M
