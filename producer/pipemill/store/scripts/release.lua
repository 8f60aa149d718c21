-- Give jobs back to the head of their lists, in the order they were taken; their delivery count stays, unless they are
-- blamed for the end of their owner.
-- KEYS  1 lease hash · 2 inbox · 3 leases · 4 counters · 5.. the queue's lists, most urgent first
-- ARGV  1 owner · 2 the lists' steps, comma-separated · 3 'some', or 'all' to end the lease, or 'blamed' for all of them
--       with the delivery count raised · 4 record prefix · 5 queue · 6.. fields (with 'some')
-- Reply the number of jobs given back.
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local lists, k = {}, 5
for step in string.gmatch(ARGV[2], '%d+') do
  lists[step] = KEYS[k]
  k = k + 1
end

-- What ran waits again, and its record says so. A body is base64, so the first "id" is the header's.
local function note_waiting(message)
  local id = string.match(message, '"id": ?"([^"\\]+)"')
  if id and string.sub(redis.call('GET', ARGV[4] .. id) or '', 1, 1) == 'r' then
    redis.call('SET', ARGV[4] .. id, 'q|0|' .. ARGV[5], 'KEEPTTL')
  end
end

local fields, all = {}, ARGV[3] ~= 'some'
if all then
  fields = redis.call('HKEYS', KEYS[1])
else
  for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end
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
    note_waiting(message)
    if ARGV[3] == 'blamed' then
      local count, raw = string.match(message, '^\1(%d+)\2(.*)$')
      message = string.char(1) .. ((tonumber(count) or 0) + 1) .. string.char(2) .. (raw or message)
    end
    redis.call('RPUSH', lists[string.match(field, '|(%d+)$')], message)
    redis.call('HDEL', KEYS[1], field)
    taken = taken + 1
  end
end
if taken > 0 then redis.call('HINCRBY', KEYS[4], 'taken', -taken) end
if all then redis.call('ZREM', KEYS[3], ARGV[1]) end
return released + taken
