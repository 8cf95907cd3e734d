--- Accepting the shown suggestion, whole or in part, as one undo step.
---
--- Text typed meanwhile is kept; accepting a part leaves the rest on the screen.
local answers = require("dgemma.answers")
local part_of = require("dgemma.part")
local undo = require("dgemma.undo")

local M = {}

-- Longest wait; events that were queued before are handled meanwhile.
local MOST_MS = 500

--- Replaces bytes of one line and puts the cursor after the new text.
---@param bufnr integer
---@param row integer
---@param from integer
---@param to integer
---@param text string
---@return integer row
---@return integer col of the cursor afterwards
local function insert(bufnr, row, from, to, text)
  local lines = vim.split(text, "\n", { plain = true })
  undo.break_step(bufnr)
  vim.api.nvim_buf_set_text(bufnr, row, from, row, to, lines)
  local end_row = row + #lines - 1
  local end_col = (#lines == 1 and from or 0) + #lines[#lines]
  local window = vim.api.nvim_get_current_win()
  window = vim.api.nvim_win_get_buf(window) == bufnr and window or vim.fn.bufwinid(bufnr)
  vim.api.nvim_win_set_cursor(window, { end_row + 1, end_col })
  undo.break_step(bufnr)
  return end_row, end_col
end

--- Puts a part of an item into the buffer and shows the rest after it.
---@param bufnr integer
---@param asked dgemma.Asked
---@param item lsp.InlineCompletionItem
---@param fit dgemma.Fit
---@param length integer bytes of the item that are taken
local function insert_part(bufnr, asked, item, fit, length)
  local taken = fit.text:sub(1, length)
  local row, col = insert(bufnr, fit.row, fit.from, fit.cursor, taken)
  local last_line = taken:match("[^\n]*$")
  local rest = {
    insertText = last_line .. fit.text:sub(length + 1),
    range = {
      start = { line = row, character = col - #last_line },
      ["end"] = { line = row, character = col + fit.to - fit.cursor },
    },
    command = item.command,
  }
  answers.continue(bufnr, asked, rest)
end

--- Returns the item of the last answer that Neovim is about to insert, if it is one of ours.
---@param bufnr integer
---@param current { insert_text: string|lsp.StringValue }
---@return dgemma.Asked? asked
---@return lsp.InlineCompletionItem? item
local function ours(bufnr, current)
  local asked = answers.shown(bufnr)
  for _, item in ipairs(asked and asked.items or {}) do
    if item.insertText == current.insert_text then
      return asked, item
    end
  end
end

--- Accepts what is shown, as soon as the text may be changed, which an expression mapping may not do.
---@param part dgemma.Part
---@param on_taken? fun() called once accepted; not if text typed meanwhile contradicts it
---@return boolean shown false where nothing is shown: the key keeps its other meaning
function M.accept(part, on_taken)
  local bufnr = vim.api.nvim_get_current_buf()
  answers.hide_unfit(bufnr)
  if not answers.visible(bufnr) then
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function(current)
      local asked, item = ours(bufnr, current)
      if not asked or not item then
        if on_taken then
          on_taken()
        end
        return current
      end
      local fit = answers.fit(bufnr, asked, item)
      if not fit or not vim.bo[bufnr].modifiable then
        return nil
      end
      if on_taken then
        on_taken()
      end
      local length = part_of.length(fit.text, fit.typed, part)
      if length < #fit.text then
        insert_part(bufnr, asked, item, fit, length)
        return nil
      end
      insert(bufnr, fit.row, fit.from, fit.to, fit.text)
      local client = vim.lsp.get_client_by_id(current.client_id)
      if client and item.command then
        client:exec_cmd(item.command, { bufnr = bufnr })
      end
      return nil
    end,
  })
end

--- Accepts what is shown now, before keys that were typed after this one are processed.
---@param part dgemma.Part
---@return boolean taken
function M.take(part)
  local taken, done = false, false
  local shown = M.accept(part, function()
    taken = true
  end)
  if shown then
    -- Neovim accepts in an event of its own; an event scheduled now comes after it.
    vim.schedule(function()
      done = true
    end)
    vim.wait(MOST_MS, function()
      return done
    end, 1)
  end
  return taken
end

--- Hides the shown suggestion until something is typed.
---@return boolean dismissed false where nothing is shown
function M.dismiss()
  if not answers.visible(vim.api.nvim_get_current_buf()) then
    return false
  end
  return vim.lsp.inline_completion.get({
    on_accept = function()
      return nil
    end,
  })
end

return M
