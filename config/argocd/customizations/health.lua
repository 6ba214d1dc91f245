-- The health of a BulkJob or a ConnectorInstance, from the conditions that kstatus reads, too.
local health = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local is = {}
for _, condition in ipairs(status.conditions or {}) do
  is[condition.type] = condition.status == "True"
  if condition.type == "Ready" then
    health.message = condition.reason .. ": " .. condition.message
  end
end

if is.Stalled then
  health.status = "Degraded"
elseif is.Ready then -- a dry run that went well, too, which is also Suspended
  health.status = "Healthy"
elseif is.Suspended then
  health.status = "Suspended"
end
return health
