-- with lists
-- Move up to n jobs into the owner's lease, most urgent first and tenants by turns; extend the lease; bring parked jobs back
-- that are due. A job that was delivered before (first byte 1) is leased alone, so that a crash can't be blamed on others.
-- KEYS  1 lease hash · 2 inbox · 3 leases · 4 sequence · 5 delayed · 6 counters · 7 cancelled · 8 steps passed over
--       9.. the queue's own lists, most urgent first
-- ARGV  1 owner · 2 lease (s) · 3 n · 4 cancellations after (s since the epoch) · 5 the lists' steps, comma-separated
--       6 jobs that the owner's process holds from other queues · 7 queue
--       8 how long a step may be passed over, for each step it is less urgent than the first (s); 0: for ever
--       9 bytes that the jobs may have together; the first may have more
-- Reply {server time, 1 if the lease stood until now, 1 if a redelivered job waits for the lease to be empty,
--        1 if bytes kept the next job out, {cancelled ids}, {field, message, ...}}
-- A server without memory refuses only a script's first write, so the first takes none: work in hand is always ended.
redis.call('DEL', 'pipemill:none')
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local n, held = tonumber(ARGV[3]), redis.call('HLEN', KEYS[1]) + ARGV[6]
local queue = queue_of(ARGV[7], ARGV[5], {unpack(KEYS, 9)})
local steps, patience = queue.steps, tonumber(ARGV[8])

-- A lease of 0 was none: it lets others find what came to an owner whose lease had run out.
local stood = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[1]) or 0) > 0 and 1 or 0
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])

local due = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, math.max(n, 1))
for i = #due, 1, -1 do
  local step, message = string.match(due[i], '^(%d+)|(.*)$')
  for k = 1, #steps do
    if steps[k] == step then put_back(queue, k, message) end
  end
  redis.call('ZREM', KEYS[5], due[i])
end

-- A sequence that starts at the clock never repeats, even when the server has lost its data.
if redis.call('EXISTS', KEYS[4]) == 0 then redis.call('SET', KEYS[4], clock[1] .. '000000') end

-- First all jobs are chosen, reading only. A source is a list from which some are.
local picks, sources, waiting, full = {}, {}, 0, n <= 0
local spent, by_bytes = 0, 0
local function source(list, k, tenant)
  sources[list] = sources[list] or {list = list, k = k, tenant = tenant, messages = {}, taken = 0}
  return sources[list]
end

-- The next message of a source, read with some more.
local function head(from, more)
  local there = #from.messages
  if from.taken == there and not from.dry then
    local read = redis.call('LRANGE', from.list, -there - more, -there - 1)
    for i = #read, 1, -1 do from.messages[#from.messages + 1] = read[i] end
    from.dry = #read < more
  end
  return from.messages[from.taken + 1]
end

local function pick(from, step, more)
  local message = not full and head(from, more)
  if not message then return false end
  local redelivered = string.byte(message, 1) == 1
  if redelivered and held > 0 then
    waiting, full = 1, true
    return false
  end
  spent = spent + cost_of(message)
  if #picks > 0 and spent > tonumber(ARGV[9]) then
    full, by_bytes = true, 1
    return false
  end
  held, from.taken = held + 1, from.taken + 1
  picks[#picks + 1] = {step, message}
  note(queue, from.k, from.tenant, -bytes_of(message))
  full = redelivered or #picks == n
  return true
end

-- The tenants of a step whose turns come first. Who pushes to the plain list takes part as the tenant without a name, who
-- is next when it comes anew, and pays when it is taken: what a tenant has there stands before its own list.
local rings = {}
local function ring(k)
  if rings[k] then return rings[k] end
  local key, tenants, plain = ring_of(queue, k), {}, source(queue.plain[k], k, '')
  local last = tonumber(redis.call('ZSCORE', key, '|') or 0)
  local members = redis.call('ZRANGE', key, 0, n, 'WITHSCORES')
  for i = 1, #members, 2 do
    local name = members[i]
    if name ~= '|' then
      local from = source(list_of(queue, k, name), k, name)
      tenants[#tenants + 1] = {name = name, turn = tonumber(members[i + 1]), source = from}
    end
  end
  if head(plain, 2) and not redis.call('ZSCORE', key, '') then
    tenants[#tenants + 1] = {name = '', turn = last, source = plain, anew = true}
  end
  rings[k] = {tenants = tenants, last = last}
  return rings[k]
end

local function comes_before(one, other)
  return one.turn < other.turn or (one.turn == other.turn and one.name < other.name)
end

local function first_of(tenants)
  local first
  for _, tenant in ipairs(tenants) do
    if not tenant.gone and (not first or comes_before(tenant, first)) then first = tenant end
  end
  return first
end

-- Choose up to so many jobs of a step; how many. They are leased under the step given.
local function serve(k, most, step)
  local before, plain = #picks, source(queue.plain[k], k, '')
  if full or most <= 0 then return 0 end
  if redis.call('EXISTS', ring_of(queue, k)) == 0 then
    while #picks - before < most and pick(plain, step, n - #picks) do end
    return #picks - before
  end
  local found = ring(k)
  local some = math.max(math.ceil(most / math.max(#found.tenants, 1)), 2)
  while #picks - before < most and not full do
    local tenant = first_of(found.tenants)
    if not tenant then break end
    if pick(tenant.source, step, some) then
      local turn = tenant.anew and found.last + cost_of(picks[#picks][2]) or tenant.turn
      found.last, tenant.moved, tenant.anew = math.max(found.last, turn), true, false
      local following = head(tenant.source, some)
      if following then tenant.turn = turn + cost_of(following) else tenant.gone = true end
    elseif not full then
      tenant.gone = true
      note(queue, k, tenant.name, 0)  -- Whoever emptied its list without us counted nothing out.
    end
  end
  return #picks - before
end

-- With empty hands, a redelivered job comes first: it would wait for ever behind a steady trickle of others.
local function suspect(list)
  return held == 0 and string.byte(redis.call('LINDEX', list, -1) or '', 1) == 1
end
local inbox = source(KEYS[2], 1, '')
if suspect(KEYS[2]) then pick(inbox, steps[1], 1) end
for k = 1, #steps do
  if suspect(queue.plain[k]) then pick(source(queue.plain[k], k, ''), steps[k], 1) end
end
while pick(inbox, steps[1], math.max(n, 1)) do end

-- A step that was passed over for long has an equal share before all others, as if it were the most urgent: of as many as
-- may be taken, set right afterwards by how many were.
local marks, owed, flat = {}, {}, {}
if patience > 0 and n > 0 then flat = redis.call('HGETALL', KEYS[8]) end
for i = 1, #flat, 2 do marks[flat[i]] = tonumber(flat[i + 1]) end
for k = 2, #steps do
  local since = marks['since|' .. steps[k]]
  if since and now - since >= patience * (k - 1) then
    local before = marks['owed|' .. steps[k]] or 0
    owed[k] = before - serve(k, math.floor(math.min(before + n / #steps, n)), steps[1])
  end
end
local in_order = {}
for k = 1, #steps do in_order[k] = serve(k, n, steps[k]) end

-- Leased first, removed from the lists second: a script that stops half-way loses nothing.
local jobs = {}
local sequence = #picks > 0 and redis.call('INCRBY', KEYS[4], #picks) - #picks
for i, chosen in ipairs(picks) do
  local field = string.format('%.0f|%s', sequence + i, chosen[1])
  redis.call('HSET', KEYS[1], field, chosen[2])
  jobs[#jobs + 1] = field
  jobs[#jobs + 1] = chosen[2]
end
for list, from in pairs(sources) do
  if from.taken > 0 then redis.call('LTRIM', list, 0, -from.taken - 1) end
end
for k, found in pairs(rings) do
  local key, others = ring_of(queue, k), 0
  local turns, gone = {found.last, '|'}, {}
  for _, tenant in ipairs(found.tenants) do
    if tenant.gone then
      gone[#gone + 1] = tenant.name
    elseif tenant.moved then
      turns[#turns + 1] = tenant.turn
      turns[#turns + 1] = tenant.name
    end
  end
  redis.call('ZADD', key, unpack(turns))
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  for _, member in ipairs({'|', ''}) do
    if redis.call('ZSCORE', key, member) then others = others + 1 end
  end
  if redis.call('ZCARD', key) == others then redis.call('DEL', key) end
end
settle(queue)

-- Note which steps still wait although others were served, and forget those that were served in their order.
local lower = {}
for k = 2, #steps do
  lower[#lower + 1] = queue.plain[k]
  lower[#lower + 1] = ring_of(queue, k)
end
if patience > 0 and n > 0 and (#flat > 0 or redis.call('EXISTS', unpack(lower)) > 0) then
  for k = 2, #steps do
    local since, due_to = 'since|' .. steps[k], 'owed|' .. steps[k]
    if in_order[k] > 0 or redis.call('EXISTS', queue.plain[k], ring_of(queue, k)) == 0 then
      redis.call('HDEL', KEYS[8], since, due_to)
    elseif #picks == n or by_bytes == 1 then
      redis.call('HSETNX', KEYS[8], since, string.format('%.3f', now))
      if owed[k] then
        redis.call('HSET', KEYS[8], due_to, string.format('%.6f', math.min(owed[k] + #picks / #steps, n)))
      end
    end
  end
end

if #picks > 0 then redis.call('HINCRBY', KEYS[6], 'taken', #picks) end
local cancelled = redis.call('ZRANGEBYSCORE', KEYS[7], '(' .. ARGV[4], '+inf')
return {string.format('%.6f', now), stood, waiting, by_bytes, cancelled, jobs}
