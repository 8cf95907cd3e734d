--- Where the language server is: the command of the options, else the first place that has one.
local M = {}

---@class dgemma.Server
---@field cmd string[] starts it
---@field origin string where it was found, for `:checkhealth`

M.MISSING = "the language server was not found; install it with: pip install 'dgemma-lsp[engine]', "
  .. "or name it: require('dgemma').setup({ cmd = { '/path/to/dgemma-lsp' } })"

local HAS_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('dgemma_lsp') is None)"

---@param folder string a virtual environment
---@param origin string
---@return dgemma.Server?
local function in_venv(folder, origin)
  local path = vim.fs.joinpath(folder, "bin", "dgemma-lsp")
  return vim.fn.executable(path) == 1 and { cmd = { path }, origin = origin } or nil
end

--- The environment of the repository that this file is part of, where it is used from a checkout.
---@return dgemma.Server?
local function in_checkout()
  local here = vim.uv.fs_realpath(debug.getinfo(1, "S").source:sub(2)) or ""
  local top = here:match("^(.*)/editors/neovim/lua/dgemma/server%.lua$")
  return top and in_venv(vim.fs.joinpath(top, ".venv"), "the checkout's environment") or nil
end

---@param root string?
---@return dgemma.Server?
local function in_project(root)
  local where = { upward = true, path = root, limit = 4, type = "directory" }
  for _, folder in ipairs(vim.fs.find({ ".venv", "venv" }, where)) do
    local server = in_venv(folder, "the project's environment")
    if server then
      return server
    end
  end
end

---@return dgemma.Server?
local function as_module()
  local python = vim.fn.exepath("python3")
  if python == "" then
    return nil
  end
  local done = vim.system({ python, "-c", HAS_MODULE }, { text = true }):wait(5000)
  return done.code == 0 and { cmd = { python, "-m", "dgemma_lsp" }, origin = "a module of " .. python } or nil
end

--- Returns the server to start.
---@param options dgemma.Options
---@param root string? the project's top folder
---@return dgemma.Server? server nil where there is none
---@return string? problem a sentence that says so, and what to do
function M.find(options, root)
  if options.cmd then
    if vim.fn.executable(options.cmd[1]) == 0 then
      local form = "%s cannot be started; put the right path into the option cmd, or leave it out"
      return nil, form:format(options.cmd[1])
    end
    return { cmd = options.cmd, origin = "the option cmd" }
  end
  local on_path = vim.fn.exepath("dgemma-lsp")
  if on_path ~= "" then
    return { cmd = { on_path }, origin = "PATH" }
  end
  local active = vim.env.VIRTUAL_ENV or ""
  local server = (active ~= "" and in_venv(active, "$VIRTUAL_ENV"))
    or (options.project_venv and in_project(root))
    or in_checkout()
    or as_module()
  if server then
    return server
  end
  return nil, M.MISSING
end

--- Runs the server's command with further arguments and waits for it; for `:checkhealth`.
---@param cmd string[]
---@param arguments string[]
---@param timeout_ms integer
---@param input string? its standard input
---@return vim.SystemCompleted? done nil where it could not be started
function M.run(cmd, arguments, timeout_ms, input)
  local command = vim.list_extend(vim.deepcopy(cmd), arguments)
  local started, process = pcall(vim.system, command, { text = true, stdin = input })
  return started and process:wait(timeout_ms) or nil
end

--- Finds out whether the server can run at all, without waiting for it.
---@param options dgemma.Options
---@param on_end fun(problem: string?) called with the last line of the error, or nil
function M.try(options, on_end)
  local found, problem = M.find(options, nil)
  if not found then
    on_end(problem)
    return
  end
  local command = vim.list_extend(vim.deepcopy(found.cmd), { "--version" })
  local settings = { text = true, timeout = 10000 }
  local started, reason = pcall(vim.system, command, settings, function(done)
    local last = vim.trim(done.stderr or ""):match("[^\n]*$")
    on_end(done.code ~= 0 and (last ~= "" and last or "no reason given") or nil)
  end)
  if not started then
    on_end(tostring(reason))
  end
end

return M
