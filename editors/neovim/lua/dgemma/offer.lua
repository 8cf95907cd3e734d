--- A question to the user that waits while the user types, and until there is a screen to show it on.
local M = {}

---@class dgemma.Choice
---@field text string
---@field run? fun()

---@param prompt string
---@param kind string of `vim.ui.select`
---@param choices dgemma.Choice[]
local function ask(prompt, kind, choices)
  vim.ui.select(choices, {
    prompt = prompt,
    kind = kind,
    format_item = function(choice)
      return choice.text
    end,
  }, function(choice)
    if choice and choice.run then
      choice.run()
    end
  end)
end

--- Asks as soon as the user can answer.
---@param prompt string
---@param kind string of `vim.ui.select`
---@param choices dgemma.Choice[]
function M.make(prompt, kind, choices)
  local function ask_or_wait()
    local event, pattern
    if #vim.api.nvim_list_uis() == 0 then
      event, pattern = "UIEnter", "*" -- a script would wait for an answer that nobody can give
    elseif not vim.api.nvim_get_mode().mode:match("^n") then
      event, pattern = "ModeChanged", "*:n"
    else
      ask(prompt, kind, choices)
      return
    end
    vim.api.nvim_create_autocmd(event, {
      pattern = pattern,
      once = true,
      desc = "dgemma: ask once the user can answer",
      callback = vim.schedule_wrap(ask_or_wait),
    })
  end
  vim.schedule(ask_or_wait)
end

return M
