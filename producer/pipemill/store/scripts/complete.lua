-- End leases, each only if the field is still the owner's: write the result, park, retry, or keep a dead letter.
-- KEYS  1 lease hash · 2 counters · 3 delayed · 4 times of dead letters · 5 cancelled · 6 dead letters
-- ARGV  1 record prefix · 2 result prefix · 3 payload prefix · 4 history prefix · 5 incidents kept · 6 TTL of record and history (s)
--       7 prefix of dead payloads · 8 prefix of dead histories
--       9 dead letters kept · 10 their bytes, payloads included · 11 how long they are kept (s)
--       12 stream prefix · 13 entries of a stream kept · 14 TTL of a stream that ends (s)
--       then per job: field · id · outcome · how · value · TTL, due time or delay (s) · number of follow-ups
--                     '' without a stream · 'end' with one · 'last': a piece is to be told before: run · offset · text
--                     if its outcome is dead: incident or '' · what the letter says
--                     then per follow-up: list · message
--       how   store: value is the result document · move: value is the key where the document lies (large ones)
--             drop: nothing is stored · park: due time given · retry: delay given, value is the incident
--       An incident, and what a letter says, is a JSON object without the time, which is put in front here.
-- Reply per job: 1 done · 0 the lease was lost, nothing changed · 2 the job had ended already, its end stands
--                3 the document to move is gone, nothing changed: give it again
--                4 what follows can't be pushed (a key of another kind, or one that the broker's user may not write): nothing
--                  changed but what was pushed before it
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
-- The lease goes last: a script that stops half-way loses nothing.
local ended = {SUCCESS = true, FAILURE = true, REVOKED = true}
local reply, totals = {}, {}

local clock
local function now()
  if not clock then
    local time = redis.call('TIME')
    clock = time[1] + time[2] / 1000000
  end
  return clock
end

local function note(id, incident)
  local history = ARGV[4] .. id
  redis.call('RPUSH', history, string.format('{"at":%.3f,', now()) .. string.sub(incident, 2))
  redis.call('LTRIM', history, -tonumber(ARGV[5]), -1)
  redis.call('EXPIRE', history, ARGV[6])
end

local function wait(field, id, due)
  redis.call('ZADD', KEYS[3], due, string.match(field, '|(%d+)$') .. '|' .. redis.call('HGET', KEYS[1], field))
  local record = redis.call('GET', ARGV[1] .. id)
  if record then redis.call('SET', ARGV[1] .. id, 'p' .. string.sub(record, 2), 'KEEPTTL') end
end

local function remove(name)
  local size = string.match(redis.call('HGET', KEYS[6], name) or '', '^{"at":[%d%.]+,"size":(%d+)')
  if size then redis.call('HINCRBY', KEYS[6], '', '-' .. size) end
  redis.call('HDEL', KEYS[6], name)
  redis.call('ZREM', KEYS[4], name)
  redis.call('UNLINK', ARGV[7] .. name, ARGV[8] .. name)
end

-- The oldest letters go while there are too many, too large or too old ones; never so many that the server stands still.
local function prune()
  for _ = 1, 1000 do
    local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
    local bytes = tonumber(redis.call('HGET', KEYS[6], '') or 0)
    local fits = redis.call('ZCARD', KEYS[4]) <= tonumber(ARGV[9]) and bytes <= tonumber(ARGV[10])
    if not oldest[1] or (fits and oldest[2] + ARGV[11] > now()) then return end
    remove(oldest[1])
  end
end

-- A letter keeps all that a replay needs; payload and history move along with it, away from a new job of the same id.
local function bury(field, id, incident, says)
  local sequence, step = string.match(field, '^(%d+)|(%d+)$')
  local name = id ~= '' and id or 'unreadable-' .. sequence
  local stored = redis.call('HGET', KEYS[1], field)
  if redis.call('ZSCORE', KEYS[4], name) then remove(name) end
  local size = #stored + #says + 100
  if id ~= '' then
    if incident ~= '' then note(id, incident) end
    for _, entry in ipairs(redis.call('LRANGE', ARGV[4] .. id, 0, -1)) do size = size + #entry end
    size = size + redis.call('STRLEN', ARGV[3] .. id)
    for from, to in pairs({[ARGV[3]] = ARGV[7], [ARGV[4]] = ARGV[8]}) do
      if redis.call('EXISTS', from .. id) == 1 then
        redis.call('RENAME', from .. id, to .. id)
        redis.call('EXPIRE', to .. id, ARGV[11])
      end
    end
  end
  local head = string.format('{"at":%.3f,"size":%.0f,"step":%s,', now(), size, step)
  redis.call('HSET', KEYS[6], name, head .. string.sub(says, 2) .. '\n' .. stored)
  redis.call('HINCRBY', KEYS[6], '', string.format('%.0f', size))
  redis.call('ZADD', KEYS[4], string.format('%.6f', now()), name)
  prune()
  redis.call('EXPIRE', KEYS[4], ARGV[11])
  redis.call('EXPIRE', KEYS[6], ARGV[11])
end

-- A user with rules from before there were streams may not write them: then the result alone tells the end.
local function end_stream(id, run, offset, text)
  local key = ARGV[12] .. id
  if run then redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[13], '*', 'r', run, 'o', offset, 't', text) end
  redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[13], '*', 'end', '1')
  redis.pcall('EXPIRE', key, ARGV[14])
end

local i = 15
while i <= #ARGV do
  local field, id, outcome, how, value, ttl = unpack(ARGV, i, i + 5)
  local follow = tonumber(ARGV[i + 6])
  local stream = ARGV[i + 7]
  local first = i + 8 + (stream == 'last' and 3 or 0) + (outcome == 'dead' and 2 or 0)
  local result = ARGV[2] .. id
  local done = redis.call('HEXISTS', KEYS[1], field)
  local head = id ~= '' and redis.call('GETRANGE', result, 0, 160) or ''
  if done == 1 and ended[string.match(head, '^{"status": ?"(%u+)"')] then done = 2 end
  if done == 1 and how == 'move' and redis.call('EXISTS', value) == 0 then done = 3 end
  local waits = done == 1 and (how == 'park' or how == 'retry')
  if done == 1 then
    for k = first, first + 2 * follow - 1, 2 do
      local pushed = redis.pcall('LPUSH', ARGV[k], ARGV[k + 1])
      if type(pushed) == 'table' and pushed.err then
        done = 4
        break
      end
    end
  end
  if done == 1 then
    if outcome == 'dead' then bury(field, id, ARGV[first - 2], ARGV[first - 1]) end
    if how == 'store' then
      redis.call('SET', result, value, 'EX', ttl)
      redis.call('PUBLISH', result, value)
    elseif how == 'move' then
      redis.call('RENAME', value, result)
      redis.call('EXPIRE', result, ttl)
    elseif how == 'park' then
      wait(field, id, ttl)
    elseif how == 'retry' then
      note(id, value)
      wait(field, id, string.format('%.6f', now() + ttl))
      -- Many long waits must not outlast what is remembered of the job.
      redis.call('EXPIRE', ARGV[1] .. id, ARGV[6])
      redis.call('EXPIRE', ARGV[3] .. id, 2 * ARGV[6])
    elseif id ~= '' then
      redis.call('SET', ARGV[1] .. id, 'd||', 'EX', ttl)
    end
  elseif how == 'move' then
    redis.call('DEL', value)
  end
  if done == 1 or done == 2 then
    if id ~= '' and not waits then
      if how ~= 'drop' or done == 2 then redis.call('DEL', ARGV[1] .. id) end
      redis.call('DEL', ARGV[3] .. id, ARGV[4] .. id)
      if done == 1 and stream == 'last' then
        end_stream(id, unpack(ARGV, i + 8, i + 10))
      elseif stream ~= '' then
        end_stream(id)
      end
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
  i = first + 2 * follow
end
for outcome, count in pairs(totals) do redis.call('HINCRBY', KEYS[2], outcome, count) end
return reply
