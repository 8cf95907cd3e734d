--- The `:Dgemma...` commands.
local client = require("dgemma.client")
local attached = require("dgemma.attached")
local denoise = require("dgemma.denoise")
local fetch = require("dgemma.fetch")
local fill = require("dgemma.fill")
local learn = require("dgemma.learn")
local pause = require("dgemma.pause")
local say = require("dgemma.say")
local selection = require("dgemma.selection")

local M = {}

local KINDS = { "selection", "description", "placeholder" }

---@param command vim.api.keyset.create_user_command.command_args
local function run_fill(command)
  local bufnr = vim.api.nvim_get_current_buf()
  local kind = command.args ~= "" and command.args or (command.range == 0 and "placeholder" or "selection")
  if not vim.list_contains(KINDS, kind) then
    say.error(("there is no kind of fill called %s; there are %s"):format(kind, table.concat(KINDS, ", ")))
    return
  end
  local server = attached.capable_client(bufnr)
  if server then
    fill.run(bufnr, {
      textDocument = { uri = vim.uri_from_bufnr(bufnr), version = vim.lsp.util.buf_versions[bufnr] },
      range = selection.of_command(bufnr, command, server.offset_encoding),
      kind = kind,
    })
  end
end

--- Defines the commands.
function M.define()
  local define = vim.api.nvim_create_user_command
  define("DgemmaFill", run_fill, {
    range = true,
    nargs = "?",
    complete = function()
      return KINDS
    end,
    desc = "Fill what is selected, or the placeholder under the cursor",
  })
  define("DgemmaCancel", function()
    if not (fill.cancel(vim.api.nvim_get_current_buf()) or fetch.work:cancel() or learn.work:cancel()) then
      say.info("nothing to cancel: no fill in this buffer, no download, no training")
    end
  end, { desc = "Cancel the running fill, or stop fetching a model or learning a repository" })
  define("DgemmaFetch", function()
    fetch.run_here(vim.api.nvim_get_current_buf())
  end, { desc = "Fetch the model that the settings choose" })
  define("DgemmaLearn", function()
    learn.run_here(vim.api.nvim_get_current_buf())
  end, { desc = "Learn the repository of this buffer, to complete it better" })
  define("DgemmaForget", function()
    learn.forget_here(vim.api.nvim_get_current_buf())
  end, { desc = "Forget what was learnt of the repository of this buffer" })
  define("DgemmaDenoise", denoise.show, { desc = "Show how the answer at the cursor is denoised" })
  define("DgemmaToggle", function(command)
    pause.toggle(not command.bang and vim.api.nvim_get_current_buf() or nil)
  end, { bang = true, desc = "Pause ghost text in this buffer, or go on; with ! everywhere" })
  define("DgemmaRestart", client.restart, { desc = "End the language server and start it again" })
end

return M
