-- End leases, each only if the field is still the owner's: write the result, park, or keep a dead letter.
-- KEYS  1 lease hash · 2 counters · 3 delayed · 4 dead letters · 5 cancelled
-- ARGV  1 record prefix · 2 result prefix · 3 payload prefix · 4 dead letters kept
--       then per job: field · id · outcome · how · value · TTL or due time (s) · number of follow-ups
--                     then per follow-up: list · message
--       how   store: value is the result document · move: value is the key where the document lies (large ones)
--             drop: nothing is stored · park: due time given
-- Reply per job: 1 done · 0 the lease was lost, nothing changed · 2 the job had ended already, its end stands
--                3 the document to move is gone, nothing changed: give it again
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
-- The lease goes last: a script that stops half-way loses nothing.
local ended = {SUCCESS = true, FAILURE = true, REVOKED = true}
local reply, totals = {}, {}
local i = 5
while i <= #ARGV do
  local field, id, outcome, how, value, ttl = unpack(ARGV, i, i + 5)
  local follow = tonumber(ARGV[i + 6])
  local result = ARGV[2] .. id
  local done = redis.call('HEXISTS', KEYS[1], field)
  local head = id ~= '' and redis.call('GETRANGE', result, 0, 160) or ''
  if done == 1 and ended[string.match(head, '^{"status": ?"(%u+)"')] then done = 2 end
  if done == 1 and how == 'move' and redis.call('EXISTS', value) == 0 then done = 3 end
  if done == 1 then
    for k = i + 7, i + 6 + 2 * follow, 2 do redis.call('LPUSH', ARGV[k], ARGV[k + 1]) end
    if outcome == 'dead' then
      redis.call('LPUSH', KEYS[4], redis.call('HGET', KEYS[1], field))
      redis.call('LTRIM', KEYS[4], 0, ARGV[4] - 1)
    end
    if how == 'store' then
      redis.call('SET', result, value, 'EX', ttl)
      redis.call('PUBLISH', result, value)
    elseif how == 'move' then
      redis.call('RENAME', value, result)
      redis.call('EXPIRE', result, ttl)
    elseif how == 'park' then
      redis.call('ZADD', KEYS[3], ttl, string.match(field, '|(%d+)$') .. '|' .. redis.call('HGET', KEYS[1], field))
      local record = redis.call('GET', ARGV[1] .. id)
      if record then redis.call('SET', ARGV[1] .. id, 'p' .. string.sub(record, 2), 'KEEPTTL') end
    elseif id ~= '' then
      redis.call('SET', ARGV[1] .. id, 'd||', 'EX', ttl)
    end
  elseif how == 'move' then
    redis.call('DEL', value)
  end
  if done == 1 or done == 2 then
    if id ~= '' and (how ~= 'park' or done == 2) then
      if how ~= 'drop' or done == 2 then redis.call('DEL', ARGV[1] .. id) end
      redis.call('DEL', ARGV[3] .. id)
    end
    if done == 2 or outcome == 'cancelled' then
      redis.call('ZREM', KEYS[5], id)
      -- Who asked for a job past its deadline has ended it as expired.
      outcome = done == 2 and string.find(head, '^{"status": ?"REVOKED".*"exc_message": ?%["expired"') and 'expired' or 'cancelled'
    end
    redis.call('HDEL', KEYS[1], field)
    totals[outcome] = (totals[outcome] or 0) + 1
  end
  reply[#reply + 1] = done
  i = i + 7 + 2 * follow
end
for outcome, count in pairs(totals) do redis.call('HINCRBY', KEYS[2], outcome, count) end
return reply
