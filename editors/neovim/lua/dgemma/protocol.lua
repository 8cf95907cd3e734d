--- Whether server and plugin speak of the same things: one number, told in the server's answer to `initialize`.
local M = {}

--- The protocol of `dgemma/fill`, `dgemma/denoise` and the command `dgemma.fill` that this plugin knows.
M.NUMBER = 1

--- Says what to upgrade, in one sentence.
---@param capabilities lsp.ServerCapabilities?
---@param info { version?: string }? the server's name and version
---@return string? problem nil where both agree
function M.problem(capabilities, info)
  local told = vim.tbl_get(capabilities or {}, "experimental", "dgemma")
  local number = type(told) == "table" and told.protocol or nil
  local version = type(told) == "table" and told.version or (info and info.version) or "of unknown version"
  if number == M.NUMBER then
    return nil
  end
  if type(number) == "number" and number > M.NUMBER then
    return ("the server %s is newer than this plugin: update the plugin; "):format(version)
      .. "until then only ghost text works"
  end
  return ("the server %s is older than this plugin: pip install --upgrade 'dgemma-lsp[engine]'; "):format(version)
    .. "until then only ghost text works"
end

return M
