"""The one script that Redis runs: it settles and reserves in all windows of all scopes at once.

Per window Redis holds two hashes: what all replicas claimed in each slot, and what this replica
did. A replica tells absolute figures of its own, so that telling them twice, or again after an
answer was lost, changes nothing. For limits on concurrency one hash holds what each replica
holds; those of replicas that have not been heard of for ``ttl`` milliseconds do not count.

KEYS: epoch, replicas, then for each window: claims of all, own claims.

ARGV[1], as JSON:
    proc: id of the replica. ttl: after which a silent replica counts as gone. grace: see below.
    hint: the wait to tell for what comes back when somebody's request ends.
    windows: [limit, width, span, ahead, reset, slot, claim, slot, claim, ...] for each window;
        ``reset`` is 1 to forget what this replica claimed before; ``ahead`` is what it would
        like to claim beyond what requests need.
    groups: [window, amount, window, amount, ...] for each request: granted as a whole or not.

Answers [status, now, replicas, windows, groups]:
    status: 0 is well; 1: this replica was not known, so it has to tell everything first; 2:
        Redis began anew less than ``grace`` ago and other replicas may not have told everything.
        Nothing is granted unless the status is 0.
    now: milliseconds since 1970.
    windows: slot, granted, left, for each.
    groups: 0 and 0 for what was granted, else the window that is in the way for longest, counted
        from 1, and the wait in milliseconds.

Time is Redis's own (TIME), in the caller's arithmetic (windows.py). Months follow Howard
Hinnant's "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
"""

SCRIPT = """
local ask = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local DAY, MONTH, HELD = 86400000, 0, -1

local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524)
    - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return year * 12 + month - 1
end

local function slot_of(width)
  if width > 0 then return math.floor(now / width) end
  return width == MONTH and month_of(math.floor(now / DAY)) or 0
end

local score = redis.call('ZSCORE', KEYS[2], ask.proc)
local status = (score and tonumber(score) > now - ask.ttl) and 0 or 1
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ask.ttl)
redis.call('ZREMRANGEBYSCORE', KEYS[2], now + ask.ttl, '+inf')
if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('SET', KEYS[1], now) end
redis.call('ZADD', KEYS[2], now, ask.proc)
local alive = {}
for _, proc in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do alive[proc] = true end
local began = tonumber(redis.call('GET', KEYS[1]) or '0')
if status == 0 and now - began < ask.grace then status = 2 end

local function tell_held(totals, window)
  if window[7] then redis.call('HSET', totals, ask.proc, string.format('%.0f', window[7])) end
  local total = 0
  local fields = redis.call('HGETALL', totals)
  for i = 1, #fields, 2 do
    if alive[fields[i]] then total = total + tonumber(fields[i + 1])
    else redis.call('HDEL', totals, fields[i]) end
  end
  return total, {}
end

local function tell_slots(totals, own, window, slot)
  local width, span = window[2], window[3]
  if window[5] == 1 then
    local claims = redis.call('HGETALL', own)
    for i = 1, #claims, 2 do
      if redis.call('HEXISTS', totals, claims[i]) == 1 then
        redis.call('HINCRBY', totals, claims[i], string.format('%.0f', -tonumber(claims[i + 1])))
      end
    end
    redis.call('DEL', own)
  end
  local first = slot - span + 1
  for i = 6, #window, 2 do
    local at, claim = window[i], window[i + 1]
    local field = string.format('%.0f', at)
    local before = tonumber(redis.call('HGET', own, field) or '0')
    if at >= first and claim ~= before then
      redis.call('HINCRBY', totals, field, string.format('%.0f', claim - before))
      redis.call('HSET', own, field, string.format('%.0f', claim))
    end
  end
  local total, counted = 0, {}
  local fields = redis.call('HGETALL', totals)
  for i = 1, #fields, 2 do
    local at, amount = tonumber(fields[i]), tonumber(fields[i + 1])
    if at < first or at > slot + span then redis.call('HDEL', totals, fields[i])
    elseif span > 1 or at == slot then
      total = total + amount
      counted[#counted + 1] = {at, amount}
    end
  end
  if redis.call('HLEN', own) > 2 * span + 2 then
    for _, field in ipairs(redis.call('HKEYS', own)) do
      if tonumber(field) < first then redis.call('HDEL', own, field) end
    end
  end
  local keep = width > 0 and width * (span + 1) or 33 * DAY
  redis.call('PEXPIRE', totals, keep)
  redis.call('PEXPIRE', own, keep)
  return total, counted
end

local states = {}
for i, window in ipairs(ask.windows) do
  local totals, own = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  local slot = slot_of(window[2])
  local total, counted
  if window[2] == HELD then total, counted = tell_held(totals, window)
  else total, counted = tell_slots(totals, own, window, slot) end
  states[i] = {slot = slot, total = total, counted = counted, granted = 0}
end

local function wait_for(i, amount)
  local window, state = ask.windows[i], states[i]
  if window[2] == HELD then return ask.hint end
  if window[2] == MONTH then
    local day = math.floor(now / DAY)
    while month_of(day) == state.slot do day = day + 1 end
    return day * DAY - now
  end
  local over = state.total + amount - window[1]
  local counted = state.counted
  table.sort(counted, function(a, b) return a[1] < b[1] end)
  local stop = now
  for _, one in ipairs(counted) do
    if over <= 0 then break end
    over = over - one[2]
    stop = (one[1] + window[3]) * window[2]
  end
  -- What is in the way was granted within this call.
  if over > 0 then stop = (state.slot + window[3]) * window[2] end
  return math.max(1, stop - now)
end

local verdicts = {}
for g, group in ipairs(ask.groups) do
  local blocker, wait = 0, 0
  if status == 0 then
    for j = 1, #group, 2 do
      local i = group[j] + 1
      if states[i].total + group[j + 1] > ask.windows[i][1] then
        local own_wait = wait_for(i, group[j + 1])
        if blocker == 0 or own_wait > wait then blocker, wait = i, own_wait end
      end
    end
    if blocker == 0 then
      for j = 1, #group, 2 do
        local state = states[group[j] + 1]
        state.total = state.total + group[j + 1]
        state.granted = state.granted + group[j + 1]
      end
    end
  end
  verdicts[2 * g - 1], verdicts[2 * g] = blocker, wait
end

local answers = {}
for i, window in ipairs(ask.windows) do
  local state = states[i]
  if status == 0 then
    local ahead = math.min(window[4], window[1] - state.total)
    if ahead > 0 then
      state.total = state.total + ahead
      state.granted = state.granted + ahead
    end
    if state.granted > 0 then
      local amount = string.format('%.0f', state.granted)
      if window[2] == HELD then redis.call('HINCRBY', KEYS[1 + 2 * i], ask.proc, amount)
      else
        local field = string.format('%.0f', state.slot)
        redis.call('HINCRBY', KEYS[1 + 2 * i], field, amount)
        redis.call('HINCRBY', KEYS[2 + 2 * i], field, amount)
        local keep = window[2] > 0 and window[2] * (window[3] + 1) or 33 * DAY
        redis.call('PEXPIRE', KEYS[1 + 2 * i], keep)
        redis.call('PEXPIRE', KEYS[2 + 2 * i], keep)
      end
    end
  end
  answers[3 * i - 2], answers[3 * i - 1] = state.slot, state.granted
  answers[3 * i] = window[1] - state.total
end
return {status, now, redis.call('ZCARD', KEYS[2]), answers, verdicts}
"""
