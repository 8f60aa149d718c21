-- with lists
-- Give jobs back to the head of their lists, in the order they were taken; their delivery count stays, unless their owner
-- died with them.
-- KEYS  1 lease hash · 2 inbox · 3 leases · 4 counters · 5.. the queue's own lists, most urgent first
-- ARGV  1 owner · 2 the lists' steps, comma-separated
--       3 'some': the fields given · 'all': all, and the lease ends · 'blamed': the same, delivery counts raised
--         'expired': the same, if the lease has run out
--       4 record prefix · 5 queue · 6 history prefix · 7 incidents kept · 8 history TTL (s)
--       9 the incident of a death, without its time · 10.. fields
-- Reply the number of jobs given back, or -1 if the lease should have run out and hasn't.
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local which = ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
if which == 'expired' then
  local deadline = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if not deadline or tonumber(deadline) > now then return -1 end
end
local queue, places = queue_of(ARGV[5], ARGV[2], {unpack(KEYS, 5)}), {}
for k, step in ipairs(queue.steps) do places[step] = k end

-- A body is base64, so the first "id" is the header's.
local function id_of(message) return string.match(message, '"id": ?"([^"\\]+)"') end

-- What ran waits again, and its record says so.
local function note_waiting(message)
  local id = id_of(message)
  local record = id and redis.call('GET', ARGV[4] .. id) or ''
  if string.sub(record, 1, 1) == 'r' then redis.call('SET', ARGV[4] .. id, 'q' .. string.sub(record, 2), 'KEEPTTL') end
end

local function note_death(message)
  local id = id_of(message)
  if not id or #id > 1020 then return end
  redis.call('RPUSH', ARGV[6] .. id, string.format('{"at":%.3f,', now) .. string.sub(ARGV[9], 2))
  redis.call('LTRIM', ARGV[6] .. id, -tonumber(ARGV[7]), -1)
  redis.call('EXPIRE', ARGV[6] .. id, ARGV[8])
end

local fields, all = {}, which ~= 'some'
if all then
  fields = redis.call('HKEYS', KEYS[1])
else
  for i = 10, #ARGV do fields[#fields + 1] = ARGV[i] end
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
    if which == 'blamed' or which == 'expired' then
      note_death(message)
      local count, raw = string.match(message, '^\1(%d+)\2(.*)$')
      message = string.char(1) .. ((tonumber(count) or 0) + 1) .. string.char(2) .. (raw or message)
    end
    put_back(queue, places[string.match(field, '|(%d+)$')], message)
    redis.call('HDEL', KEYS[1], field)
    taken = taken + 1
  end
end
settle(queue)
if taken > 0 then redis.call('HINCRBY', KEYS[4], 'taken', -taken) end
if taken > 0 and which == 'expired' then redis.call('HINCRBY', KEYS[4], 'redelivered', taken) end
if all then redis.call('ZREM', KEYS[3], ARGV[1]) end
return released + taken
