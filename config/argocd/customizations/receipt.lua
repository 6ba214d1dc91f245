-- The health of a BulkReceipt. It is a record: what is settled is in order, however the load ended.
local record = obj.record or {}
local outcome = record.outcome
if outcome == nil then
  return { status = "Progressing", message = "The load is claimed, on its way, or running" }
end
local message = outcome .. ": " .. (record.message or record.reason or "")
if outcome == "Unknown" then -- somebody must find out whether it was taken
  return { status = "Degraded", message = message }
end
return { status = "Healthy", message = message }
