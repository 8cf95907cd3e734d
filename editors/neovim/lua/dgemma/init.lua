--- dgemma: ghost text from a diffusion model on this machine, through the language server `dgemma-lsp`.
local M = {}

--- Starts completing. Call it once, in `init.lua`.
---@param raw? table the options of |dgemma-options|
function M.setup(raw)
  if not vim.lsp.inline_completion then
    vim.notify("dgemma: Neovim 0.12 or newer is needed, this is " .. tostring(vim.version()), vim.log.levels.ERROR)
    return
  end
  local options, problems = require("dgemma.options").read(raw)
  M.options = options
  if #problems > 0 then
    require("dgemma.say").error_once(table.concat(problems, "; "))
  end
  require("dgemma.denoise").define_highlights()
  require("dgemma.fill").cancel_key = options.keys.cancel
  require("dgemma.keys").map(options.keys)
  require("dgemma.commands").define()
  require("dgemma.client").enable(options)
  vim.api.nvim_create_autocmd("LspProgress", {
    group = vim.api.nvim_create_augroup("dgemma.progress", { clear = true }),
    desc = "dgemma: show how far a fill, a download or a training is",
    callback = function(event)
      local params = event.data.params
      if type(params.value) == "table" then
        require("dgemma.fill").report(params.token, params.value)
        require("dgemma.fetch").work:report(params.token, params.value)
        require("dgemma.learn").work:report(params.token, params.value)
      end
    end,
  })
end

--- The text of a statusline for the current buffer; empty where the plugin is not active.
---@return string
function M.status()
  return require("dgemma.status").text(vim.api.nvim_get_current_buf())
end

--- Accepts the shown suggestion, for a mapping of your own.
---@param part? dgemma.Part "whole" without it
---@return boolean taken false where nothing is shown
function M.accept(part)
  return require("dgemma.accept").accept(part or "whole")
end

return M
