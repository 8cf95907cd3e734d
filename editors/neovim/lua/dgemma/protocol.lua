--- Whether server and plugin are compatible: one version number, in the server's answer to `initialize`.
local M = {}

--- The version of `dgemma/fill`, `dgemma/denoise` and the command `dgemma.fill` that this plugin supports.
M.NUMBER = 1

--- Returns what to upgrade, in one sentence.
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
