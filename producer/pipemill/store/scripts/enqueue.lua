-- with lists
-- Accept jobs into a queue: bounds with partial accept, idempotency, job record. A job whose deadline has passed ends
-- here as expired, and takes no room.
-- KEYS  1 registry of queues · 2 counters · 3 delayed · 4.. the queue's own lists, most urgent first
-- ARGV  1 queue · 2 record prefix · 3 result prefix · 4 record TTL (s) · 5 idempotency TTL (s)
--       6 payload prefix · 7 payload TTL (s) · 8 the lists' steps, comma-separated
--       9 result document of an expired job, as far as its id
--       then per job: id · index of its list (0-based) · idempotency key or '' · uploaded payload or ''
--                     deadline (s since the epoch) or '' · message
-- Uploaded payloads of jobs that aren't pushed are deleted: no bound counts them.
-- Reply {-1} for an unknown queue, else {max depth, depth, the bound that was met or '', its limit, what stands under it, as
--        many jobs those are, bytes of the job refused, tenants that share, id per accepted job...}; a job that is already
--        known answers with the id it is known by. Jobs behind the last accepted one were refused.
local info = redis.call('HGET', KEYS[1], ARGV[1])
if not info then return {-1} end
info = cjson.decode(info)
local queue = queue_of(ARGV[1], ARGV[8], {unpack(KEYS, 4)})
queue.fair = info.fair ~= false
local bytes_key = 'pipemill:bytes:' .. queue.name

local jobs = waiting_in(queue)
-- Whoever emptied the lists without us counted no bytes out.
local was_empty = jobs == 0
local bytes = was_empty and 0 or tonumber(redis.call('HGET', bytes_key, '*') or 0)
local depth = jobs + redis.call('ZCARD', KEYS[3])
local taken = tonumber(redis.call('HGET', KEYS[2], 'taken') or 0)

-- What waits of a tenant; its only job may wait in the plain list.
local standings = {}
local function standing(tenant)
  if standings[tenant] then return standings[tenant] end
  local its, fields = {jobs = 0, bytes = 0}, {}
  for k = 1, #queue.steps do
    its.jobs = its.jobs + redis.call('LLEN', list_of(queue, k, tenant))
    fields[k] = queue.steps[k] .. '|' .. tenant
  end
  for _, count in ipairs(was_empty and {} or redis.call('HMGET', bytes_key, unpack(fields))) do
    its.bytes = its.bytes + (count or 0)
  end
  local first = tenant ~= '' and redis.call('LINDEX', queue.plain[1], -1)
  if first and home(queue, first) == tenant then
    its.jobs, its.bytes = its.jobs + 1, its.bytes + bytes_of(first)
  end
  standings[tenant] = its
  return its
end

-- How many tenants share the turns of a step.
local shared = {}
local function sharing(k)
  if shared[k] then return shared[k] end
  local ring = ring_of(queue, k)
  local count = redis.call('ZCARD', ring)
  for _, member in ipairs({'|', ''}) do
    if redis.call('ZSCORE', ring, member) then count = count - 1 end
  end
  shared[k] = math.max(count + redis.call('EXISTS', queue.plain[k]), 1)
  return shared[k]
end

-- The share of the server's memory that is in use, 0 if it has no end or keys are evicted. Looked up once a second: INFO is
-- slow. Nothing is written when it is above the bound, so that a full server answers, too.
local function memory_in_use(most)
  local second = redis.call('TIME')[1]
  local at, known = string.match(redis.call('GET', 'pipemill:memory') or '', '^(%d+)|([%d.]+)$')
  if at == second then return tonumber(known) end
  local facts, share = redis.pcall('INFO', 'memory'), 0
  if type(facts) == 'string' and string.find(facts, 'maxmemory_policy:noeviction', 1, true) then
    local whole = tonumber(string.match(facts, 'maxmemory:(%d+)') or 0)
    if whole > 0 then share = string.match(facts, 'used_memory:(%d+)') / whole end
  end
  if share < most then redis.call('SET', 'pipemill:memory', string.format('%s|%.4f', second, share), 'EX', 10) end
  return share
end

-- Something that waits is never in the way of itself: a queue that is empty takes any job.
local function over(limit, standing_bytes, more)
  return limit and standing_bytes > 0 and standing_bytes + more > limit
end

-- The bound that keeps a job out: its name, the limit, what stands under it, as many jobs those are; '' for none.
local share
local function bound(tenant, more)
  if depth >= info.max_depth then return 'max_depth', info.max_depth, depth, depth end
  if over(info.max_bytes, bytes, more) then return 'max_bytes', info.max_bytes, bytes, jobs end
  if queue.fair and (info.max_tenant_depth or info.max_tenant_bytes) then
    local its, most = standing(tenant), info.max_tenant_depth
    if most and its.jobs >= most then return 'max_tenant_depth', most, its.jobs, its.jobs end
    most = info.max_tenant_bytes
    if over(most, its.bytes, more) then return 'max_tenant_bytes', most, its.bytes, its.jobs end
  end
  local most = info.max_memory_share or 1
  share = share or memory_in_use(most)
  if share >= most then return 'max_memory_share', math.floor(most * 100), math.floor(share * 100), 0 end
  return ''
end

-- The job's number among those taken from the queue, as far as can be told: tenants take turns.
local turns = {}
local function ordinal(k, tenant)
  if turns[k] == nil then turns[k] = redis.call('EXISTS', ring_of(queue, k)) == 1 end
  if not turns[k] then return taken + depth end
  return taken + math.min(depth, standing(tenant).jobs * sharing(k))
end

local function push(k, tenant, message, size)
  local place = place_of(queue, k, tenant)
  redis.call('LPUSH', list_of(queue, k, place), message)
  if place ~= '' then
    join(queue, k, place, size > 0 and size or #message)
    turns[k] = true
  end
  local its = standings[tenant]
  note(queue, k, place, size)
  jobs, depth, bytes = jobs + 1, depth + 1, bytes + size
  if its then its.jobs, its.bytes = its.jobs + 1, its.bytes + size end
end

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
-- Whether it could be ended here: a user who may not write results leaves that to the workers.
local function end_expired(id)
  local document = ARGV[9] .. cjson.encode(id) .. '}'
  local done = redis.pcall('SET', ARGV[3] .. id, document, 'EX', info.result_ttl_seconds or 3600)
  if done.err and (string.find(done.err, 'NOPERM', 1, true) or string.find(done.err, 'ACL failure', 1, true)) then return false end
  if done.err then error(done.err) end
  redis.call('PUBLISH', ARGV[3] .. id, document)
  return true
end

local met, pushed, expired, before = {'', 0, 0, 0, 0, 1}, 0, 0, depth
local accepted, unused = {}, {}
local function note_unused(upload)
  if upload ~= '' then unused[#unused + 1] = upload end
end
for i = 10, #ARGV, 6 do
  local id, k, once, upload = ARGV[i], ARGV[i + 1] + 1, ARGV[i + 2], ARGV[i + 3]
  local deadline, message = ARGV[i + 4], ARGV[i + 5]
  local known = once ~= '' and redis.call('GET', once)
  -- A key whose job has left no trace is free again: its answer could not be had any more. Where nobody wants one, it stands.
  if known and header(message, '"ignore_result":', '^ ?(%a+)') ~= 'true' then
    if redis.call('EXISTS', ARGV[2] .. known, ARGV[3] .. known) == 0 then known = false end
  end
  if known then
    note_unused(upload)
    accepted[#accepted + 1] = known
  elseif redis.call('EXISTS', ARGV[2] .. id, ARGV[3] .. id) > 0 then
    note_unused(upload)
    accepted[#accepted + 1] = id
  elseif deadline ~= '' and tonumber(deadline) < now and end_expired(id) then
    if once ~= '' then redis.call('SET', once, id, 'EX', ARGV[5]) end
    note_unused(upload)
    expired = expired + 1
    accepted[#accepted + 1] = id
  else
    local tenant = home(queue, message)
    local size = bytes_of(message)
    local name, limit, standing_there, as_jobs = bound(tenant, size)
    if name ~= '' then
      met = {name, limit, standing_there, as_jobs, size, sharing(k)}
      for rest = i + 3, #ARGV, 6 do note_unused(ARGV[rest]) end
      break
    end
    push(k, tenant, message, size)
    pushed = pushed + 1
    local record = string.format('q|%.0f|%s', ordinal(k, tenant), queue.name)
    if deadline ~= '' then record = record .. '|' .. deadline end
    redis.call('SET', ARGV[2] .. id, record, 'EX', ARGV[4])
    if once ~= '' then redis.call('SET', once, id, 'EX', ARGV[5]) end
    if upload ~= '' and redis.call('EXISTS', upload) == 1 then
      redis.call('RENAME', upload, ARGV[6] .. id)
      redis.call('EXPIRE', ARGV[6] .. id, ARGV[7])
    end
    accepted[#accepted + 1] = id
  end
end
if pushed + expired > 0 then redis.call('HINCRBY', KEYS[2], 'enqueued', pushed + expired) end
if expired > 0 then redis.call('HINCRBY', KEYS[2], 'expired', expired) end
if pushed > 0 then
  if was_empty then redis.call('DEL', bytes_key) end
  settle(queue)
end
-- Last: a server without memory refuses only a script's first write. A user with rules from before may not; then they expire.
if #unused > 0 then redis.pcall('DEL', unpack(unused)) end
local reply = {info.max_depth, before, unpack(met)}
for _, id in ipairs(accepted) do reply[#reply + 1] = id end
return reply
