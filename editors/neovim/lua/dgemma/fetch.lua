--- The chosen model where it is not fetched yet: offered once, and fetched by the server, with its progress.
local attached = require("dgemma.attached")
local offer = require("dgemma.offer")
local work = require("dgemma.work")

local M = {}

---@class dgemma.MissingModel
---@field name string
---@field title string
---@field numBytes integer of the download
---@field licence string
---@field message string that it is not fetched, and what to do

M.work = work.new({
  method = "dgemma/fetchModel",
  title = "Fetching a model",
  already = "the model is being fetched already; :DgemmaCancel stops that",
  stopped = "the downloaded part is kept; :DgemmaFetch continues the download",
})

---@type table<string, boolean> by name, in this Neovim
local offered = {}

--- Fetches through the server of a buffer the model that the settings choose.
---@param bufnr integer
function M.run_here(bufnr)
  local client = attached.capable_client(bufnr)
  if client then
    M.work:run(client, {})
  end
end

--- Offers a model once in this Neovim.
---@param model dgemma.MissingModel
---@param client vim.lsp.Client
function M.offer(model, client)
  if offered[model.name] then
    return
  end
  offered[model.name] = true
  local size = ("%.0f MB"):format(model.numBytes / 1e6)
  offer.make(("dgemma: the model %s (%s) is not there yet"):format(model.name, model.title), "dgemma.fetch", {
    {
      text = ("Fetch it (%s, %s)"):format(size, model.licence),
      run = function()
        M.work:run(client, {})
      end,
    },
    {
      text = "No, and do not ask again (:DgemmaFetch fetches it later)",
      run = function()
        ---@diagnostic disable-next-line: param-type-mismatch a method of our own
        client:request("dgemma/declineModel", { name = model.name }, function() end)
      end,
    },
  })
end

return M
