--- The plugin's options. One table describes every option; reader, messages and defaults come from it.
---
--- A wrong option never stops the plugin: it is named in a problem, with the nearest valid one, and its default holds.
local nearest = require("dgemma.nearest")

local M = {}

---@class dgemma.Options
---@field cmd? string[] the server's command; without it, it is looked for (|dgemma-server|)
---@field filetypes? string[] where to complete; without it, in every ordinary file
---@field root_markers string[] what stands in the top folder of a project
---@field project_venv boolean whether a `.venv` of the opened project may supply the server: it runs what lies there
---@field settings table the server's settings, as `dgemma-lsp settings` lists them
---@field keys dgemma.Keys
---@field denoise dgemma.DenoiseOptions

---@class dgemma.Keys
---@field accept string|false accepts the whole ghost text
---@field accept_word string|false accepts its next word
---@field accept_line string|false accepts the rest of its line
---@field next string|false shows the next candidate
---@field previous string|false shows the one before
---@field dismiss string|false hides the ghost text
---@field cancel string|false cancels a running fill, in normal mode and only while one runs

---@class dgemma.DenoiseOptions
---@field always boolean whether every ghost text is preceded by a view of how it is denoised

---@class dgemma.Option
---@field default any
---@field check fun(value: any): boolean
---@field form string what the value has to be

local function is_string_list(value)
  return vim.islist(value) and #value > 0 and vim.iter(value):all(function(each)
    return type(each) == "string" and each ~= ""
  end)
end

local function is_key(value)
  return value == false or (type(value) == "string" and value ~= "")
end

---@param default string
---@return dgemma.Option
local function key(default)
  return { default = default, check = is_key, form = "a key such as <Tab>, or false" }
end

---@param default boolean
---@return dgemma.Option
local function switch(default)
  return {
    default = default,
    check = function(value)
      return type(value) == "boolean"
    end,
    form = "true or false",
  }
end

---@type table<string, dgemma.Option>
local OPTIONS = {
  ["cmd"] = { check = is_string_list, form = 'a list such as { "/path/to/dgemma-lsp" }' },
  ["filetypes"] = { check = is_string_list, form = 'a list such as { "python" }' },
  ["root_markers"] = { default = { ".git" }, check = is_string_list, form = 'a list such as { ".git" }' },
  ["project_venv"] = switch(false),
  ["settings"] = {
    default = vim.empty_dict(),
    check = function(value)
      return type(value) == "table" and (vim.tbl_isempty(value) or not vim.islist(value))
    end,
    form = "a table such as { deadlineMs = 500 }",
  },
  ["keys.accept"] = key("<Tab>"),
  ["keys.accept_word"] = key("<M-Right>"),
  ["keys.accept_line"] = key("<M-Down>"),
  ["keys.next"] = key("<M-]>"),
  ["keys.previous"] = key("<M-[>"),
  ["keys.dismiss"] = key("<C-]>"),
  ["keys.cancel"] = key("<C-c>"),
  ["denoise.always"] = switch(false),
}

---@type table<string, boolean>
local GROUPS = { keys = true, denoise = true }

---@param into table
---@param name string dotted
---@param value any
local function put(into, name, value)
  local group, leaf = name:match("^(%w+)%.([%w_]+)$")
  if group then
    into[group] = into[group] or {}
    into[group][leaf] = value
  else
    into[name] = value
  end
end

---@return dgemma.Options
local function defaults()
  local values = {}
  for name, option in pairs(OPTIONS) do
    put(values, name, vim.deepcopy(option.default))
  end
  return values
end

--- Returns the given options as dotted names, in alphabetical order.
---@param raw table
---@return [string, any][]
local function flattened(raw)
  local pairs_ = {} ---@type [string, any][]
  for name, value in pairs(raw) do
    if GROUPS[name] and type(value) == "table" then
      for leaf, inner in pairs(value) do
        table.insert(pairs_, { ("%s.%s"):format(name, leaf), inner })
      end
    else
      table.insert(pairs_, { tostring(name), value })
    end
  end
  table.sort(pairs_, function(one, other)
    return one[1] < other[1]
  end)
  return pairs_
end

---@return string[]
function M.names()
  return vim.fn.sort(vim.tbl_keys(OPTIONS)) --[[@as string[] ]]
end

--- Merges the argument of `setup` into the defaults.
---@param raw any
---@return dgemma.Options options
---@return string[] problems a sentence for each option that cannot be used
function M.read(raw)
  local options, problems = defaults(), {}
  if raw == nil then
    return options, problems
  end
  if type(raw) ~= "table" or (vim.islist(raw) and #raw > 0) then
    return options, { ("setup() takes a table of options, not %s; the defaults hold"):format(vim.inspect(raw)) }
  end
  for _, pair in ipairs(flattened(raw)) do
    local name, value = pair[1], pair[2]
    local option = OPTIONS[name]
    if name == "keys" and value == false then
      for each in pairs(options.keys) do
        options.keys[each] = false
      end
    elseif not option then
      local meant = nearest.nearest(name, vim.list_extend(vim.tbl_keys(GROUPS), M.names()))
      table.insert(problems, ("there is no option %s; did you mean %s? It is ignored"):format(name, meant))
    elseif option.check(value) then
      -- Of the tables only that of settings may be empty, and it would reach the server as a list.
      local is_empty = type(value) == "table" and vim.tbl_isempty(value)
      put(options, name, is_empty and vim.empty_dict() or vim.deepcopy(value))
    else
      local given = vim.inspect(value, { newline = " ", indent = "" })
      table.insert(problems, ("%s must be %s, not %s; its default holds"):format(name, option.form, given))
    end
  end
  return options, problems
end

return M
