-- Give jobs back to the head of their lists, in the order they were taken; their delivery count stays.
-- KEYS  1 lease hash · 2 inbox · 3 leases · 4 counters · 5.. the queue's lists, most urgent first
-- ARGV  1 owner · 2 the lists' steps, comma-separated · 3 '1' to give all back and end the lease
--       4.. fields (none with 3 = '1')
-- Reply the number of jobs given back.
local lists, k = {}, 5
for step in string.gmatch(ARGV[2], '%d+') do
  lists[step] = KEYS[k]
  k = k + 1
end
local fields, all = {}, ARGV[3] == '1'
if all then
  fields = redis.call('HKEYS', KEYS[1])
else
  for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
end
table.sort(fields, function(a, b) return tonumber(string.match(a, '^%d+')) > tonumber(string.match(b, '^%d+')) end)
local released = 0
if all then
  for _, message in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
    redis.call('RPUSH', KEYS[5], message)
    redis.call('LREM', KEYS[2], 1, message)
    released = released + 1
  end
end
local taken = 0
for _, field in ipairs(fields) do
  local message = redis.call('HGET', KEYS[1], field)
  if message then
    redis.call('RPUSH', lists[string.match(field, '|(%d+)$')], message)
    redis.call('HDEL', KEYS[1], field)
    taken = taken + 1
  end
end
if taken > 0 then redis.call('HINCRBY', KEYS[4], 'taken', -taken) end
if all then redis.call('ZREM', KEYS[3], ARGV[1]) end
return released + taken
