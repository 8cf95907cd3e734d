--- Learning a repository: the server trains an adapter for it, with progress, result and undo; a hint comes once.
local attached = require("dgemma.attached")
local offer = require("dgemma.offer")
local say = require("dgemma.say")
local work = require("dgemma.work")

local M = {}

---@class dgemma.LearnHint
---@field root string path of the repository
---@field uri string of the same
---@field message string why learning it is worth it

M.work = work.new({
  method = "dgemma/learnRepository",
  title = "Learning the repository",
  already = "a repository is being learnt already; :DgemmaCancel stops that",
  stopped = "what is learnt so far is kept; :DgemmaLearn goes on with it",
})

---@param client vim.lsp.Client
---@param uri string of a file or folder in the repository
local function learn(client, uri)
  M.work:run(client, { uri = uri }, function(result)
    if result.installed then
      say.info("the adapter is used from now on; :DgemmaForget removes it")
    end
  end)
end

--- Learns the repository of a buffer.
---@param bufnr integer
function M.run_here(bufnr)
  local client = attached.capable_client(bufnr)
  if client then
    learn(client, vim.uri_from_bufnr(bufnr))
  end
end

--- Removes the adapter of the repository of a buffer.
---@param bufnr integer
function M.forget_here(bufnr)
  local client = attached.capable_client(bufnr)
  if not client then
    return
  end
  ---@diagnostic disable-next-line: param-type-mismatch a method of our own
  client:request("dgemma/forgetRepository", { uri = vim.uri_from_bufnr(bufnr) }, function(err, result)
    if err then
      say.error(err.message)
    else
      say.info(result.message)
    end
  end)
end

--- Shows the hint that a repository can be learnt; the server sends it once.
---@param hint dgemma.LearnHint
---@param client vim.lsp.Client
function M.offer(hint, client)
  offer.make(("dgemma: %s. Learning it makes completions fit it better."):format(hint.message), "dgemma.learn", {
    {
      text = "Learn it (20 minutes in the background, on this machine)",
      run = function()
        learn(client, hint.uri)
      end,
    },
    { text = "Not now (:DgemmaLearn does it later)" },
  })
end

return M
