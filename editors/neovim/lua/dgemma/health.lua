--- `:checkhealth dgemma`: what is needed, whether it is there, and what to do.
local attached = require("dgemma.attached")
local protocol = require("dgemma.protocol")
local server = require("dgemma.server")
local status = require("dgemma.status")

local M = {}

local DOCTOR = { ok = vim.health.ok, warn = vim.health.warn, fail = vim.health.error }
local TIMEOUT_MS = 20000

local function check_neovim()
  local version = tostring(vim.version())
  if vim.lsp.inline_completion then
    vim.health.ok("Neovim " .. version .. " has inline completion")
  else
    vim.health.error("Neovim " .. version .. " has no inline completion", "install Neovim 0.12 or newer")
  end
end

---@param options dgemma.Options
---@return dgemma.Server?
local function check_server(options)
  local found, problem = server.find(options, vim.fs.root(0, options.root_markers))
  if not found then
    vim.health.error(problem or server.MISSING)
    return nil
  end
  local done = server.run(found.cmd, { "--version" }, TIMEOUT_MS)
  local command = table.concat(found.cmd, " ")
  if done and done.code == 0 then
    vim.health.ok(("%s: %s, from %s"):format(vim.trim(done.stdout), command, found.origin))
    return found
  end
  local reason = done and vim.trim(done.stderr):match("[^\n]*$") or "it cannot be started"
  vim.health.error(
    ("%s, from %s, does not run: %s"):format(command, found.origin, reason),
    "install the server with: pip install 'dgemma-lsp[engine]', or put the right command into the option cmd"
  )
end

local function check_clients()
  local clients = vim.lsp.get_clients({ name = attached.NAME })
  if #clients == 0 then
    vim.health.info("no server runs yet: it starts with the first file that is opened")
  end
  for _, client in ipairs(clients) do
    local problem = protocol.problem(client.server_capabilities, client.server_info)
    if problem then
      vim.health.warn(problem)
    else
      vim.health.ok(("the running server speaks protocol %d"):format(protocol.NUMBER))
    end
    local last = status.last(client.id)
    if last then
      local tell = last.kind == "error" and vim.health.error or vim.health.info
      tell(("its last status: %s%s"):format(last.kind, last.message ~= "" and ", " .. last.message or ""))
    end
  end
end

---@param found dgemma.Server
---@param options dgemma.Options
local function check_engine(found, options)
  -- The server reads the same settings, so the doctor examines the engine that this editor uses.
  local arguments = { "doctor", "--json", "--settings", "-" }
  local done = server.run(found.cmd, arguments, TIMEOUT_MS, vim.json.encode(options.settings))
  local decoded, report = pcall(vim.json.decode, done and done.stdout or "")
  if not decoded then
    local reason = done and vim.trim(done.stderr):match("[^\n]*$") or "it cannot be started"
    vim.health.error("dgemma-lsp doctor gave no report: " .. reason, "run it in a terminal to see why")
    return
  end
  for _, check in ipairs(report.checks) do
    local tell = DOCTOR[check.verdict] or vim.health.info
    tell(("%s: %s"):format(check.name, check.detail), check.remedy ~= "" and check.remedy or nil)
  end
end

--- Writes the report.
function M.check()
  vim.health.start("dgemma: editor")
  check_neovim()
  local options = require("dgemma").options
  if not options then
    vim.health.warn("setup() was not called", "put require('dgemma').setup({}) into init.lua")
    options = require("dgemma.options").read(nil)
  end
  vim.health.start("dgemma: server")
  local found = check_server(options)
  check_clients()
  if found then
    vim.health.start("dgemma: engine (dgemma-lsp doctor)")
    check_engine(found, options)
  end
end

return M
