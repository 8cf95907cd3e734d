--- The server's client: its `vim.lsp.config`, and the handlers of a server's start, messages and end.
local answers = require("dgemma.answers")
local attached = require("dgemma.attached")
local denoise = require("dgemma.denoise")
local fetch = require("dgemma.fetch")
local fill = require("dgemma.fill")
local learn = require("dgemma.learn")
local pause = require("dgemma.pause")
local protocol = require("dgemma.protocol")
local say = require("dgemma.say")
local server = require("dgemma.server")
local status = require("dgemma.status")

local M = {}

---@param bufnr integer
---@return boolean whether the buffer is a file on this disk, or is to become one
local function is_ordinary(bufnr)
  local name = vim.api.nvim_buf_get_name(bufnr)
  return vim.bo[bufnr].buftype == "" and name ~= "" and not name:match("^%a[%w+.-]+://")
end

---@param options dgemma.Options
---@return fun(bufnr: integer, on_dir: fun(root: string?))
local function root_dir(options)
  return function(bufnr, on_dir)
    if not is_ordinary(bufnr) then
      return
    end
    local root = vim.fs.root(bufnr, options.root_markers)
    local found, problem = server.find(options, root)
    if found then
      on_dir(root)
    else
      say.error_once(problem or server.MISSING)
    end
  end
end

---@param options dgemma.Options
---@return fun(dispatchers: vim.lsp.rpc.Dispatchers, config: vim.lsp.ClientConfig): vim.lsp.rpc.PublicClient
local function start(options)
  return function(dispatchers, config)
    local found, problem = server.find(options, config.root_dir)
    return vim.lsp.rpc.start(assert(found, problem).cmd, dispatchers, { cwd = config.cmd_cwd, env = config.cmd_env })
  end
end

--- Hides ghost text that contradicts the text at once, where Neovim waits for the next answer.
---@param bufnr integer
local function hide_unfit_on_typing(bufnr)
  vim.api.nvim_create_autocmd({ "TextChangedI", "TextChangedP", "CursorMovedI" }, {
    group = vim.api.nvim_create_augroup(("dgemma:%d"):format(bufnr), { clear = true }),
    buffer = bufnr,
    desc = "dgemma: hide ghost text that contradicts what was typed",
    callback = function()
      -- Neovim draws in the same event, before or after.
      vim.schedule(function()
        answers.hide_unfit(bufnr)
      end)
    end,
  })
end

--- Asks for ghost text where the user began to type before the server or its engine was ready.
---@param bufnr integer
local function ask_while_typing(bufnr)
  if bufnr == vim.api.nvim_get_current_buf() and vim.api.nvim_get_mode().mode:match("^i") then
    answers.ask_again(bufnr)
  end
end

--- Reports in a sentence why a server ended unasked.
---@param options dgemma.Options
---@param code integer
---@param signal integer
local function explain_end(options, code, signal)
  local how = signal ~= 0 and ("signal %d"):format(signal) or ("code %d"):format(code)
  server.try(options, function(problem)
    if problem then
      say.error_once(("the server cannot run (%s: %s); :checkhealth dgemma says what to do"):format(how, problem))
    else
      say.error_once(("the server has ended (%s); :DgemmaRestart starts it again"):format(how))
    end
  end)
end

---@param options dgemma.Options
---@return vim.lsp.Config
local function config(options)
  return {
    cmd = start(options),
    filetypes = options.filetypes,
    root_dir = root_dir(options),
    init_options = options.settings,
    settings = { dgemma = options.settings },
    -- This plugin offers a model that is not fetched, and to learn a repository, in place of the server.
    capabilities = { experimental = { dgemma = { fetchModel = true, learnRepository = true } } },
    handlers = {
      ["dgemma/status"] = function(_, params, ctx)
        if status.take(params, ctx.client_id) then
          ask_while_typing(vim.api.nvim_get_current_buf())
        end
      end,
      ["dgemma/modelMissing"] = function(_, params, ctx)
        local client = vim.lsp.get_client_by_id(ctx.client_id)
        if client then
          fetch.offer(params, client)
        end
      end,
      ["dgemma/learnHint"] = function(_, params, ctx)
        local client = vim.lsp.get_client_by_id(ctx.client_id)
        if client then
          learn.offer(params, client)
        end
      end,
      ["window/showMessage"] = function(_, params)
        say.from_server(params)
      end,
      ["dgemma/draft"] = function(_, params)
        denoise.draw(params)
      end,
    },
    commands = {
      ["dgemma.fill"] = function(command, ctx)
        fill.run(ctx.bufnr, command.arguments[1])
      end,
    },
    on_init = function(client)
      local problem = protocol.problem(client.server_capabilities, client.server_info)
      if problem then
        say.error_once(problem)
      end
      answers.watch(client, function(bufnr, position)
        if options.denoise.always and not problem then
          denoise.accompany(client, bufnr, position)
        end
      end, denoise.give_way)
    end,
    on_attach = function(_, bufnr)
      pause.apply(bufnr)
      hide_unfit_on_typing(bufnr)
      ask_while_typing(bufnr)
    end,
    on_exit = function(code, signal, client_id)
      vim.schedule(function()
        status.drop(client_id)
        fill.lost(client_id)
        fetch.work:lost(client_id)
        learn.work:lost(client_id)
        vim.cmd.redrawstatus({ bang = true })
        -- Neovim ends servers at its own end with code 0 or a signal of its own.
        if (code ~= 0 or signal ~= 0) and vim.v.exiting == vim.NIL and not M.stopping then
          explain_end(options, code, signal)
        end
      end)
    end,
  }
end

--- Whether servers are being ended on purpose.
M.stopping = false

--- Starts a server for every ordinary file, now and later.
---@param options dgemma.Options
function M.enable(options)
  vim.lsp.config(attached.NAME, config(options))
  vim.lsp.enable(attached.NAME)
end

--- Ends the servers and starts new ones, without messages.
function M.restart()
  say.forget()
  M.stopping = true
  vim.lsp.enable(attached.NAME, false)
  local function again(tries)
    local left = vim.lsp.get_clients({ name = attached.NAME })
    if #left > 0 and tries > 0 then
      vim.defer_fn(function()
        again(tries - 1)
      end, 50)
      return
    end
    for _, client in ipairs(left) do
      client:stop(true)
    end
    M.stopping = false
    vim.lsp.enable(attached.NAME)
  end
  again(60)
end

return M
