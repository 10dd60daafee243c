;; The membrane: the module that owns the guest's memory and stands between it and WASI.
;;
;; The interpreter imports its memory and all of its 43 functions from here. Nothing it can reach
;; is a Python callback, and no WASI function is passed on as it is: each is answered here, or
;; bounded here, charged here (host calls burn fuel in proportion to what they cost the host) and
;; cleaned of what would differ from one machine to another.
;;
;; A word after an at sign is a number from the table in membrane.py (errno values, costs in fuel, layout offsets,
;; limits, and the values of the globals at the freeze). Pointers that come from the guest are used
;; by plain loads and stores, so one outside the memory is a trap, as it would be in the guest.
(module
  ;;@IMPORTS real WASI functions the wrappers below call, as $real_<name>

  (memory (export "memory") @MEMORY_PAGES)

  ;; ------------------------------------------------------------------ state
  ;; Saved with the memory at a freeze; the host reads and sets them between calls.
  (global $clock_ns (export "clock_ns") (mut i64) (i64.const @INIT_clock_ns))
  (global $rng (export "rng") (mut i64) (i64.const @INIT_rng))
  (global $arena (export "arena") (mut i32) (i32.const @INIT_arena))
  (global $open_files (export "open_files") (mut i32) (i32.const @INIT_open_files))
  ;; What lies in the scratch space: bytes charged, and files and directories.
  (global $scratch_used (export "scratch_used") (mut i64) (i64.const @INIT_scratch_used))
  (global $scratch_entries (export "scratch_entries") (mut i32) (i32.const @INIT_scratch_entries))
  ;; Set by begin for one call.
  (global $realtime (export "realtime") (mut i32) (i32.const 0))
  (global $quota (export "quota_bytes") (mut i64) (i64.const 0))
  (global $entry_limit (export "entry_limit") (mut i32) (i32.const 0))
  (global $file_limit (export "file_limit") (mut i64) (i64.const 0))
  (global $depth_limit (export "depth_limit") (mut i32) (i32.const 0))
  (global $open_limit (export "open_limit") (mut i32) (i32.const @OPEN_FILES_AT_BOOT))
  (global $output_limit (export "output_limit") (mut i32) (i32.const @OUTPUT_BYTES))
  (global $request (export "request") (mut i32) (i32.const 0))
  (global $request_len (export "request_len") (mut i32) (i32.const 0))
  ;; Whether the host answers questions, and the question that waits: where it lies and how long it is, then
  ;; how long the answer is and where it goes. The host sets the first after begin.
  (global $may_ask (export "may_ask") (mut i32) (i32.const 0))
  (global $question (export "question") (mut i32) (i32.const 0))
  (global $question_len (export "question_len") (mut i32) (i32.const 0))
  (global $answer (export "answer") (mut i32) (i32.const 0))
  (global $answer_len (export "answer_len") (mut i32) (i32.const 0))
  ;; Set where the call pauses, and not for want of wasmtime's fuel alone. The host takes it back.
  (global $pausing (export "pausing") (mut i32) (i32.const 0))
  ;; When the guest wants its signal, by its monotonic clock in nanoseconds; 0 for never.
  (global $alarm_ns (export "alarm_ns") (mut i64) (i64.const 0))
  ;; What is left of standard input, in guest memory. The host sets it after begin.
  (global $stdin (export "stdin") (mut i32) (i32.const 0))
  (global $stdin_len (export "stdin_len") (mut i32) (i32.const 0))
  ;; What was left of the fuel when the clock was last set.
  (global $clock_fuel (export "clock_fuel") (mut i64) (i64.const 0))
  ;; Set by path_depth: whether the path goes up somewhere.
  (global $goes_up (mut i32) (i32.const 0))
  ;; A bit for each of the first 64 descriptors of files: whether it is /dev/null. Set by every opening, so
  ;; that nothing of it lasts.
  (global $nulls (mut i64) (i64.const 0))
  ;; Read by the host after a call.
  (global $response (export "response") (mut i32) (i32.const 0))
  (global $response_len (export "response_len") (mut i32) (i32.const 0))
  (global $stdout_len (export "stdout_len") (mut i32) (i32.const 0))
  (global $stderr_len (export "stderr_len") (mut i32) (i32.const 0))
  (global $stop_reason (export "stop_reason") (mut i32) (i32.const 0))
  (global $exit_code (export "exit_code") (mut i32) (i32.const 0))

  ;; Prepare one call: seed the generator, set the limits, hand over the request.
  (func (export "begin") (param $seed i64) (param $realtime i32) (param $output_limit i32)
      (param $open_limit i32) (param $quota i64) (param $entry_limit i32) (param $file_limit i64)
      (param $depth_limit i32) (param $request i32) (param $request_len i32) (param $fuel i64)
    (global.set $clock_fuel (local.get $fuel))
    (global.set $rng (local.get $seed))
    (global.set $realtime (local.get $realtime))
    (global.set $output_limit (local.get $output_limit))
    (global.set $open_limit (local.get $open_limit))
    (global.set $quota (local.get $quota))
    (global.set $entry_limit (local.get $entry_limit))
    (global.set $file_limit (local.get $file_limit))
    (global.set $depth_limit (local.get $depth_limit))
    (global.set $request (local.get $request))
    (global.set $request_len (local.get $request_len))
    (global.set $response (i32.const 0))
    (global.set $response_len (i32.const 0))
    (global.set $stdout_len (i32.const 0))
    (global.set $stderr_len (i32.const 0))
    (global.set $stop_reason (i32.const 0))
    (global.set $exit_code (i32.const 0))
    (global.set $may_ask (i32.const 0))
    (global.set $pausing (i32.const 0))
    (global.set $alarm_ns (i64.const 0))
    (global.set $question_len (i32.const 0))
    (global.set $answer (i32.const 0))
    (global.set $stdin_len (i32.const 0)))

  ;; ------------------------------------------------------------------ helpers
  ;; The interpreter's own functions, which the host puts here once: the one for charging (fuel in, what is
  ;; left out), the one that gives room on its heap, and the one that takes note of a signal.
  (type $charge (func (param i64) (result i64)))
  (type $alloc (func (param i32) (result i32)))
  (table $charge (export "charge") 3 3 funcref)
  (func $charge_fuel (param $fuel i64) (result i64)
    (call_indirect $charge (type $charge) (local.get $fuel) (i32.const 0)))
  ;; Charge this much fuel for what a host call costs beside its own instructions.
  (func $burn (param $fuel i32)
    (drop (call $charge_fuel (i64.extend_i32_u (local.get $fuel)))))
  ;; Come up for air: use up what wasmtime counts until its next yield, which is not the guest's fuel.
  (func $air
    (local $turns i32)
    (local.set $turns (i32.const @AIR_TURNS))
    (loop $again
      (br_if $again (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
  (func $pause
    (global.set $pausing (i32.const 1))
    (call $air)
    (if (i64.ne (global.get $alarm_ns) (i64.const 0)) (then (call $ring))))
  ;; Have the guest take note of its signal, if it is time. It handles it where its byte code goes on.
  (func $ring
    (if (i64.ge_u (call $now (i32.const 1)) (global.get $alarm_ns))
      (then
        (global.set $alarm_ns (i64.const 0))
        (drop (call_indirect $charge (type $alloc) (i32.const @SIGALRM) (i32.const 2))))))
  ;; Let the virtual clock go on by the work that was done since the last time.
  (func $advance_clock
    (local $left i64) (local $ns i64)
    (local.set $left (call $charge_fuel (i64.const 0)))
    (local.set $ns (i64.div_u (i64.sub (global.get $clock_fuel) (local.get $left)) (i64.const @FUEL_PER_NS)))
    (global.set $clock_fuel (i64.sub (global.get $clock_fuel)
      (i64.mul (local.get $ns) (i64.const @FUEL_PER_NS))))
    (global.set $clock_ns (i64.add (global.get $clock_ns) (local.get $ns))))

  ;; Charge a transfer: a fixed part and a part per byte.
  (func $burn_transfer (param $bytes i32)
    (call $burn (i32.add (i32.const @COST_TRANSFER)
      (i32.div_u (local.get $bytes) (i32.const @BYTES_PER_FUEL)))))

  ;; End the call for a reason the host reads; never returns.
  (func $stop (param $reason i32)
    (global.set $stop_reason (local.get $reason))
    (unreachable))

  (func $max (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.gt_u (local.get $a) (local.get $b))))
  (func $min (param $a i32) (param $b i32) (result i32)
    (select (local.get $a) (local.get $b) (i32.lt_u (local.get $a) (local.get $b))))

  ;; Copy the first iovec that is not empty, cut to the largest transfer, to the arena's private iovec.
  ;; Returns its length. Only the first thousand or so are looked at.
  (func $first_iovec (param $iovs i32) (param $count i32) (result i32)
    (local $len i32)
    (local.set $count (call $min (local.get $count) (i32.const @IOVECS)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $len (i32.load offset=4 (local.get $iovs)))
        (br_if $done (local.get $len))
        (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (if (i32.eqz (local.get $len)) (then (return (i32.const 0))))
    (local.set $len (call $min (local.get $len) (i32.const @TRANSFER_BYTES)))
    (i32.store offset=@AT_IOVEC (global.get $arena) (i32.load (local.get $iovs)))
    (i32.store offset=@AT_IOVEC_LEN (global.get $arena) (local.get $len))
    (local.get $len))

  (func $iovec (result i32) (i32.add (global.get $arena) (i32.const @AT_IOVEC)))
  (func $count_cell (result i32) (i32.add (global.get $arena) (i32.const @AT_COUNT)))
  (func $stat_cell (result i32) (i32.add (global.get $arena) (i32.const @AT_STAT)))

  ;; Overwrite what a filestat tells of the host: device, inode, link count, times, and the size of a
  ;; directory, which is its file system's affair.
  (func $normalise_stat (param $stat i32) (param $inode i64)
    (if (i32.eq (i32.load8_u offset=16 (local.get $stat)) (i32.const 3))
      (then (i64.store offset=32 (local.get $stat) (i64.const 4096))))
    (i64.store (local.get $stat) (i64.const 1))
    (i64.store offset=8 (local.get $stat) (local.get $inode))
    (i64.store offset=24 (local.get $stat) (i64.const 1))
    (i64.store offset=40 (local.get $stat) (i64.const @START_NS))
    (i64.store offset=48 (local.get $stat) (i64.const @START_NS))
    (i64.store offset=56 (local.get $stat) (i64.const @START_NS)))

  ;; An inode number that depends on the path alone: FNV-1a of its bytes.
  (func $path_inode (param $dir i32) (param $path i32) (param $len i32) (result i64)
    (local $hash i64)
    (local.set $hash (i64.xor (i64.const 0xcbf29ce484222325) (i64.extend_i32_u (local.get $dir))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $len)))
        (local.set $hash (i64.mul (i64.const 0x100000001b3)
          (i64.xor (local.get $hash) (i64.load8_u (local.get $path)))))
        (local.set $path (i32.add (local.get $path) (i32.const 1)))
        (local.set $len (i32.sub (local.get $len) (i32.const 1)))
        (br $next)))
    (i64.or (local.get $hash) (i64.const 2)))

  ;; Whether anything may be written at all.
  (func $scratch (result i32) (i64.ne (global.get $quota) (i64.const 0)))
  ;; Charge the quota of the scratch space, over all calls of the fork; past it the call ends.
  (func $charge (param $bytes i64)
    (if (i64.gt_s (local.get $bytes) (i64.const 0))
      (then
        (global.set $scratch_used (i64.add (global.get $scratch_used) (local.get $bytes)))
        (if (i64.gt_s (global.get $scratch_used) (global.get $quota))
          (then (call $stop (i32.const @STOP_FILES)))))))
  ;; Give back what a file that shrank, or went, no longer takes.
  (func $give_back (param $bytes i64)
    (if (i64.gt_s (local.get $bytes) (i64.const 0))
      (then
        (global.set $scratch_used (select
          (i64.sub (global.get $scratch_used) (local.get $bytes)) (i64.const 0)
          (i64.ge_s (global.get $scratch_used) (local.get $bytes)))))))
  ;; Charge one more file or directory; past their number the call ends.
  (func $charge_entry
    (if (i32.ge_u (global.get $scratch_entries) (global.get $entry_limit))
      (then (call $stop (i32.const @STOP_ENTRIES))))
    (global.set $scratch_entries (i32.add (global.get $scratch_entries) (i32.const 1)))
    (call $charge (i64.const 4096)))
  (func $drop_entry
    (if (global.get $scratch_entries)
      (then (global.set $scratch_entries (i32.sub (global.get $scratch_entries) (i32.const 1))))))
  (func $uncharge_entry
    (call $drop_entry)
    (call $give_back (i64.const 4096)))
  ;; An entry is gone. While anything is open its bytes may still be there, and stay charged.
  (func $forget_entry (param $size i64)
    (call $drop_entry)
    (if (i32.eqz (global.get $open_files))
      (then (call $give_back (i64.add (i64.const 4096) (call $round_4k (local.get $size)))))))

  (func $round_4k (param $bytes i64) (result i64)
    (i64.and (i64.add (local.get $bytes) (i64.const 4095)) (i64.const -4096)))

  ;; Charge what a file grows by if it comes to reach `end`, rounded up to 4 KiB, holes included.
  ;; Without scratch space nothing can be written; with it, used up, the call ends.
  (func $charge_growth (param $fd i32) (param $end i64) (result i32)
    (local $errno i32)
    (local.set $errno (call $real_fd_filestat_get (local.get $fd) (call $stat_cell)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (if (i32.eqz (call $scratch)) (then (return (i32.const @EROFS))))
    (if (i64.gt_u (local.get $end) (global.get $file_limit)) (then (return (i32.const @EFBIG))))
    (call $charge (i64.sub (call $round_4k (local.get $end))
      (call $round_4k (i64.load offset=@AT_STAT_SIZE (global.get $arena)))))
    (i32.const 0))

  ;; ------------------------------------------------------------------ the mailbox
  ;; An empty message fetches the request; one that begins with a byte that no value begins with is a question,
  ;; or, if that byte comes twice, says when the guest wants its signal; any other is the response. All live in
  ;; guest memory.
  (func (export "host.call") (param $ptr i32) (param $len i32) (param $out_ptr i32)
      (param $out_len i32) (result i32)
    (if (local.get $len)
      (then
        (if (i32.eq (i32.load8_u (local.get $ptr)) (i32.const @QUESTION_MARK))
          (then
            (if (i32.and (i32.eq (local.get $len) (i32.const 10))
                  (i32.eq (i32.load8_u offset=1 (local.get $ptr)) (i32.const @QUESTION_MARK)))
              (then
                (global.set $alarm_ns (i64.load offset=2 (local.get $ptr)))
                (i32.store (local.get $out_ptr) (i32.const 0))
                (i32.store (local.get $out_len) (i32.const 0))
                (return (i32.const 0))))
            (return (call $ask (local.get $ptr) (local.get $len) (local.get $out_ptr)
              (local.get $out_len)))))))
    (if (local.get $len)
      (then
        (global.set $response (local.get $ptr))
        (global.set $response_len (local.get $len))
        (i32.store (local.get $out_ptr) (i32.const 0))
        (i32.store (local.get $out_len) (i32.const 0)))
      (else
        (i32.store (local.get $out_ptr) (global.get $request))
        (i32.store (local.get $out_len) (global.get $request_len))
        (global.set $request (i32.const 0))
        (global.set $request_len (i32.const 0))))
    (i32.const 0))

  ;; Ask the host and wait: the call pauses until the host, which looks at each pause, has the answer. Its
  ;; length comes first and takes the question away; then there is room for it, and the host fills that in.
  (func $ask (param $ptr i32) (param $len i32) (param $out_ptr i32) (param $out_len i32) (result i32)
    (local $room i32)
    (call $burn_transfer (local.get $len))
    (if (i32.eqz (global.get $may_ask)) (then (return (i32.const @ENOTSUP))))
    (global.set $question (local.get $ptr))
    (global.set $question_len (local.get $len))
    (loop $wait
      (call $burn (i32.const @COST_QUESTION))
      (call $pause)
      (br_if $wait (global.get $question_len)))
    (local.set $room (call_indirect $charge (type $alloc)
      (call $max (global.get $answer_len) (i32.const 1)) (i32.const 1)))
    (if (i32.eqz (local.get $room)) (then (return (i32.const @ENOMEM))))
    (global.set $answer (local.get $room))
    (loop $wait
      (call $burn_transfer (global.get $answer_len))
      (call $pause)
      (br_if $wait (global.get $answer)))
    (i32.store (local.get $out_ptr) (local.get $room))
    (i32.store (local.get $out_len) (global.get $answer_len))
    (i32.const 0))

  ;; ------------------------------------------------------------------ arguments and environment
  (func (export "args_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const @ENV_COUNT))
    (i32.store (local.get $size) (i32.const @ENV_BYTES))
    (i32.const 0))
  (func (export "environ_get") (param $vector i32) (param $text i32) (result i32)
    ;;@ENVIRON stores of the fixed environment
    (i32.const 0))

  ;; ------------------------------------------------------------------ time and chance
  (func (export "clock_res_get") (param $id i32) (param $out i32) (result i32)
    (if (i32.gt_u (local.get $id) (i32.const 3)) (then (return (i32.const @EINVAL))))
    (i64.store (local.get $out) (i64.const @CLOCK_STEP_NS))
    (i32.const 0))
  ;; Virtual: it goes on with the work that was done, and with sleeps. The wall clock starts in 2020.
  (func $clock_time_get (export "clock_time_get") (param $id i32) (param $precision i64)
      (param $out i32) (result i32)
    (if (i32.gt_u (local.get $id) (i32.const 3)) (then (return (i32.const @EINVAL))))
    (if (global.get $realtime)
      (then
        (call $burn (i32.const @COST_CLOCK))
        (return (call $real_clock_time_get
          (select (local.get $id) (i32.const 1) (i32.le_u (local.get $id) (i32.const 1)))
          (local.get $precision) (local.get $out)))))
    (call $burn (i32.const @COST_CLOCK))
    (call $advance_clock)
    (i64.store (local.get $out)
      (select (i64.add (global.get $clock_ns) (i64.const @START_NS)) (global.get $clock_ns)
        (i32.eqz (local.get $id))))
    (i32.const 0))
  ;; splitmix64, seeded by the call. In the realtime profile, the host's entropy.
  (func (export "random_get") (param $ptr i32) (param $len i32) (result i32)
    (local $word i64) (local $part i32)
    (if (global.get $realtime)
      (then
        (loop $more
          (local.set $part (call $min (local.get $len) (i32.const @TRANSFER_BYTES)))
          (call $burn_transfer (local.get $part))
          (drop (call $real_random_get (local.get $ptr) (local.get $part)))
          (local.set $ptr (i32.add (local.get $ptr) (local.get $part)))
          (local.set $len (i32.sub (local.get $len) (local.get $part)))
          (br_if $more (local.get $len)))
        (return (i32.const 0))))
    (drop (call $charge_fuel (i64.mul (i64.extend_i32_u (local.get $len)) (i64.const @FUEL_PER_RANDOM_BYTE))))
    (block $done
      (loop $more
        (br_if $done (i32.eqz (local.get $len)))
        (global.set $rng (i64.add (global.get $rng) (i64.const 0x9e3779b97f4a7c15)))
        (local.set $word (global.get $rng))
        (local.set $word (i64.mul (i64.const 0xbf58476d1ce4e5b9)
          (i64.xor (local.get $word) (i64.shr_u (local.get $word) (i64.const 30)))))
        (local.set $word (i64.mul (i64.const 0x94d049bb133111eb)
          (i64.xor (local.get $word) (i64.shr_u (local.get $word) (i64.const 27)))))
        (local.set $word (i64.xor (local.get $word) (i64.shr_u (local.get $word) (i64.const 31))))
        (local.set $part (call $min (local.get $len) (i32.const 8)))
        (local.set $len (i32.sub (local.get $len) (local.get $part)))
        (loop $byte
          (i64.store8 (local.get $ptr) (local.get $word))
          (local.set $word (i64.shr_u (local.get $word) (i64.const 8)))
          (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
          (br_if $byte (local.tee $part (i32.sub (local.get $part) (i32.const 1)))))
        (br $more)))
    (i32.const 0))

  ;; Never passed on. Subscriptions to descriptors are ready at once. With only clocks, time moves to
  ;; the earliest of them: virtually by setting the clock, in the realtime profile by leaving the
  ;; duration in the arena and pausing until the host, which reads it at each pause
  ;; and then lets the time pass, clears it.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $ready i32)
      (result i32)
    (local $i i32) (local $sub i32) (local $wait i64) (local $best i64) (local $found i32)
    (call $burn (i32.const @COST_POLL))
    (if (i32.or (i32.eqz (local.get $count)) (i32.gt_u (local.get $count) (i32.const @POLL_SUBSCRIPTIONS)))
      (then (return (i32.const @EINVAL))))
    (local.set $best (i64.const -1))
    (loop $scan
      (local.set $sub (i32.add (local.get $in) (i32.mul (local.get $i) (i32.const 48))))
      (local.set $wait (call $wait_of (local.get $sub)))
      (if (i64.lt_u (local.get $wait) (local.get $best)) (then (local.set $best (local.get $wait))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $scan (i32.lt_u (local.get $i) (local.get $count))))
    (local.set $i (i32.const 0))
    (loop $report
      (local.set $sub (i32.add (local.get $in) (i32.mul (local.get $i) (i32.const 48))))
      (if (i64.le_u (call $wait_of (local.get $sub)) (local.get $best))
        (then
          (call $event (i32.add (local.get $out) (i32.mul (local.get $found) (i32.const 32)))
            (i64.load (local.get $sub)) (i32.load8_u offset=8 (local.get $sub)))
          (local.set $found (i32.add (local.get $found) (i32.const 1)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $report (i32.lt_u (local.get $i) (local.get $count))))
    (i32.store (local.get $ready) (local.get $found))
    (if (i64.eqz (local.get $best)) (then (return (i32.const 0))))
    ;; No sleep is longer than to the guest's signal.
    (if (i64.ne (global.get $alarm_ns) (i64.const 0))
      (then
        (local.set $wait (i64.sub (global.get $alarm_ns) (call $now (i32.const 1))))
        (local.set $wait (select (local.get $wait) (i64.const 1) (i64.gt_s (local.get $wait) (i64.const 0))))
        (if (i64.lt_u (local.get $wait) (local.get $best)) (then (local.set $best (local.get $wait))))))
    (if (global.get $realtime)
      (then
        (call $sleep (local.get $best))
        (if (i64.ne (global.get $alarm_ns) (i64.const 0)) (then (call $ring))))
      (else
        (global.set $clock_ns (i64.add (global.get $clock_ns) (local.get $best)))
        ;; Others may have something to do meanwhile, or a deadline.
        (if (i32.or (global.get $may_ask) (i64.ne (global.get $alarm_ns) (i64.const 0)))
          (then (call $pause)))))
    (i32.const 0))
  ;; How long a subscription waits, in nanoseconds; 0 for a descriptor. A flag of 1 is a deadline.
  (func $wait_of (param $sub i32) (result i64)
    (local $wait i64) (local $now i64)
    (if (i32.load8_u offset=8 (local.get $sub)) (then (return (i64.const 0))))
    (local.set $wait (i64.load offset=24 (local.get $sub)))
    (if (i32.and (i32.load16_u offset=40 (local.get $sub)) (i32.const 1))
      (then
        (local.set $now (call $now (i32.load offset=16 (local.get $sub))))
        (local.set $wait (select (i64.const 0) (i64.sub (local.get $wait) (local.get $now))
          (i64.le_u (local.get $wait) (local.get $now))))))
    (local.get $wait))
  (func $now (param $id i32) (result i64)
    (if (global.get $realtime)
      (then
        (call $burn (i32.const @COST_CLOCK))
        (drop (call $real_clock_time_get (i32.ne (local.get $id) (i32.const 0)) (i64.const 0)
          (i32.add (global.get $arena) (i32.const @AT_CLOCK))))
        (return (i64.load offset=@AT_CLOCK (global.get $arena)))))
    (call $advance_clock)
    (i64.add (global.get $clock_ns)
      (select (i64.const @START_NS) (i64.const 0) (i32.eqz (local.get $id)))))
  (func $event (param $event i32) (param $userdata i64) (param $type i32)
    (i64.store (local.get $event) (local.get $userdata))
    (i64.store offset=8 (local.get $event) (i64.const 0))
    (i64.store offset=16 (local.get $event) (i64.const 0))
    (i64.store offset=24 (local.get $event) (i64.const 0))
    (i32.store8 offset=10 (local.get $event) (local.get $type)))
  (func $sleep (param $duration_ns i64)
    (i64.store offset=@AT_SLEEP (global.get $arena) (local.get $duration_ns))
    (loop $wait
      (call $burn (i32.const @COST_YIELD))
      (call $air)
      (br_if $wait (i64.ne (i64.load offset=@AT_SLEEP (global.get $arena)) (i64.const 0)))))
  ;; The interpreter's code calls this where it may be set aside; for what the guest itself calls by this name,
  ;; the code has a function of its own.
  (func (export "sched_yield") (result i32) (call $pause) (i32.const 0))
  (func (export "proc_exit") (param $code i32)
    (global.set $exit_code (local.get $code))
    (call $stop (i32.const @STOP_EXIT)))

  ;; ------------------------------------------------------------------ descriptors
  ;; 0 is always at its end; 1 and 2 are captured; 3 to 6 are the preopened directories
  ;; / /app /harness /tmp; from 7 on they are files the guest opened.
  (func (export "fd_prestat_get") (param $fd i32) (param $out i32) (result i32)
    (local $len i32)
    (local.set $len (call $preopen_len (local.get $fd)))
    (if (i32.eqz (local.get $len)) (then (return (i32.const @EBADF))))
    (i32.store (local.get $out) (i32.const 0))
    (i32.store offset=4 (local.get $out) (local.get $len))
    (i32.const 0))
  (func $preopen_len (param $fd i32) (result i32)
    (if (i32.eq (local.get $fd) (i32.const 3)) (then (return (i32.const 1))))
    (if (i32.eq (local.get $fd) (i32.const 4)) (then (return (i32.const 4))))
    (if (i32.eq (local.get $fd) (i32.const 5)) (then (return (i32.const 8))))
    (if (i32.eq (local.get $fd) (i32.const 6)) (then (return (i32.const 4))))
    (i32.const 0))
  (func (export "fd_prestat_dir_name") (param $fd i32) (param $out i32) (param $len i32) (result i32)
    (local $own i32)
    (local.set $own (call $preopen_len (local.get $fd)))
    (if (i32.eqz (local.get $own)) (then (return (i32.const @EBADF))))
    (if (i32.lt_u (local.get $len) (local.get $own)) (then (return (i32.const @ENAMETOOLONG))))
    (if (i32.eq (local.get $fd) (i32.const 3))
      (then (i32.store8 (local.get $out) (i32.const 0x2f))))                            ;; "/"
    (if (i32.eq (local.get $fd) (i32.const 4))
      (then (i32.store (local.get $out) (i32.const 0x7070612f))))                       ;; "/app"
    (if (i32.eq (local.get $fd) (i32.const 5))
      (then (i64.store (local.get $out) (i64.const 0x7373656e7261682f))))               ;; "/harness"
    (if (i32.eq (local.get $fd) (i32.const 6))
      (then (i32.store (local.get $out) (i32.const 0x706d742f))))                       ;; "/tmp"
    (i32.const 0))
  (func $is_stdio (param $fd i32) (result i32) (i32.lt_u (local.get $fd) (i32.const 3)))
  (func $is_file (param $fd i32) (result i32)
    (i32.and (i32.ge_s (local.get $fd) (i32.const @FIRST_FILE)) (i32.const 1)))

  (func (export "fd_close") (param $fd i32) (result i32)
    (local $errno i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (call $is_stdio (local.get $fd)) (then (return (i32.const 0))))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (local.set $errno (call $real_fd_close (local.get $fd)))
    (if (i32.eqz (local.get $errno))
      (then (global.set $open_files (i32.sub (global.get $open_files) (i32.const 1)))))
    (local.get $errno))
  (func (export "fd_fdstat_get") (param $fd i32) (param $out i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (call $is_stdio (local.get $fd))
      (then
        (i64.store (local.get $out) (i64.const 0))
        (i64.store offset=8 (local.get $out)
          (select (i64.const 64) (i64.const 2) (local.get $fd)))  ;; the right to write, or to read
        (i64.store offset=16 (local.get $out) (i64.const 0))
        (return (i32.const 0))))
    (call $real_fd_fdstat_get (local.get $fd) (local.get $out)))
  (func (export "fd_fdstat_set_flags") (param $fd i32) (param $flags i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (result i32) (call $is_file (local.get $fd))
      (then (call $real_fd_fdstat_set_flags (local.get $fd) (local.get $flags)))
      (else (select (i32.const 0) (i32.const @EBADF) (call $is_stdio (local.get $fd))))))
  (func (export "fd_filestat_get") (param $fd i32) (param $out i32) (result i32)
    (local $errno i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (call $is_stdio (local.get $fd))
      (then
        (i64.store offset=16 (local.get $out) (i64.const 0))
        (i64.store offset=32 (local.get $out) (i64.const 0)))
      (else
        (local.set $errno (call $real_fd_filestat_get (local.get $fd) (local.get $out)))
        (if (local.get $errno) (then (return (local.get $errno))))))
    (call $normalise_stat (local.get $out) (i64.const 1))
    (i32.const 0))
  (func (export "fd_filestat_set_size") (param $fd i32) (param $size i64) (result i32)
    (local $errno i32) (local $before i64)
    (call $burn (i32.const @COST_PATH))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (local.set $errno (call $charge_growth (local.get $fd) (local.get $size)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $before (i64.load offset=@AT_STAT_SIZE (global.get $arena)))
    (local.set $errno (call $real_fd_filestat_set_size (local.get $fd) (local.get $size)))
    (if (i32.eqz (local.get $errno))
      (then (call $give_back (i64.sub (call $round_4k (local.get $before))
        (call $round_4k (local.get $size))))))
    (local.get $errno))
  ;; Times are constant, so setting them changes nothing; advice and syncs have nothing to do.
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const 0))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const 0))
  (func (export "fd_sync") (param i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const 0))
  (func (export "fd_datasync") (param i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const 0))
  (func (export "fd_seek") (param $fd i32) (param $offset i64) (param $whence i32) (param $out i32)
      (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @ESPIPE))))
    (call $real_fd_seek (local.get $fd) (local.get $offset) (local.get $whence) (local.get $out)))
  (func (export "fd_tell") (param $fd i32) (param $out i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @ESPIPE))))
    (call $real_fd_tell (local.get $fd) (local.get $out)))

  ;; ------------------------------------------------------------------ reading and writing
  (func (export "fd_read") (param $fd i32) (param $iovs i32) (param $count i32) (param $out i32)
      (result i32)
    (local $len i32)
    (if (i32.eqz (local.get $fd))
      (then
        (i32.store (local.get $out) (i32.const 0))
        (if (global.get $stdin_len)
          (then (call $read_stdin (local.get $iovs) (local.get $count) (local.get $out))))
        (return (i32.const 0))))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (local.set $len (call $first_iovec (local.get $iovs) (local.get $count)))
    (call $burn_transfer (local.get $len))
    (if (i32.eqz (local.get $len))
      (then (i32.store (local.get $out) (i32.const 0)) (return (i32.const 0))))
    (call $real_fd_read (local.get $fd) (call $iovec) (i32.const 1) (local.get $out)))
  (func $read_stdin (param $iovs i32) (param $count i32) (param $out i32)
    (local $len i32)
    (local.set $len (call $min (call $first_iovec (local.get $iovs) (local.get $count))
      (global.get $stdin_len)))
    (call $burn_transfer (local.get $len))
    (memory.copy (i32.load offset=@AT_IOVEC (global.get $arena)) (global.get $stdin) (local.get $len))
    (global.set $stdin (i32.add (global.get $stdin) (local.get $len)))
    (global.set $stdin_len (i32.sub (global.get $stdin_len) (local.get $len)))
    (i32.store (local.get $out) (local.get $len)))
  (func (export "fd_pread") (param $fd i32) (param $iovs i32) (param $count i32) (param $offset i64)
      (param $out i32) (result i32)
    (local $len i32)
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (local.set $len (call $first_iovec (local.get $iovs) (local.get $count)))
    (call $burn_transfer (local.get $len))
    (if (i32.eqz (local.get $len))
      (then (i32.store (local.get $out) (i32.const 0)) (return (i32.const 0))))
    (call $real_fd_pread (local.get $fd) (call $iovec) (i32.const 1) (local.get $offset)
      (local.get $out)))
  (func (export "fd_write") (param $fd i32) (param $iovs i32) (param $count i32) (param $out i32)
      (result i32)
    (local $len i32) (local $errno i32) (local $end i64)
    (if (i32.eqz (local.get $fd)) (then (return (i32.const @EBADF))))
    (local.set $len (call $first_iovec (local.get $iovs) (local.get $count)))
    (if (call $is_stdio (local.get $fd))
      (then
        (call $burn (i32.add (i32.const @COST_CAPTURE)
          (i32.div_u (local.get $len) (i32.const @CAPTURED_BYTES_PER_FUEL))))
        (call $capture (local.get $fd) (local.get $len))
        (i32.store (local.get $out) (local.get $len))
        (return (i32.const 0))))
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (call $burn_transfer (local.get $len))
    (call $burn (i32.const @COST_WRITE))
    (if (call $is_null (local.get $fd))
      (then (i32.store (local.get $out) (local.get $len)) (return (i32.const 0))))
    (local.set $errno (call $write_position (local.get $fd)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $end (i64.add (i64.load offset=@AT_CLOCK (global.get $arena))
      (i64.extend_i32_u (local.get $len))))
    (local.set $errno (call $charge_growth (local.get $fd) (local.get $end)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (call $real_fd_write (local.get $fd) (call $iovec) (i32.const 1) (local.get $out)))
  (func (export "fd_pwrite") (param $fd i32) (param $iovs i32) (param $count i32) (param $offset i64)
      (param $out i32) (result i32)
    (local $len i32) (local $errno i32)
    (if (i32.eqz (call $is_file (local.get $fd))) (then (return (i32.const @EBADF))))
    (if (i64.lt_s (local.get $offset) (i64.const 0)) (then (return (i32.const @EINVAL))))
    (local.set $len (call $first_iovec (local.get $iovs) (local.get $count)))
    (call $burn_transfer (local.get $len))
    (call $burn (i32.const @COST_WRITE))
    (if (call $is_null (local.get $fd))
      (then (i32.store (local.get $out) (local.get $len)) (return (i32.const 0))))
    (local.set $errno (call $charge_growth (local.get $fd)
      (i64.add (local.get $offset) (i64.extend_i32_u (local.get $len)))))
    (if (local.get $errno) (then (return (local.get $errno))))
    (call $real_fd_pwrite (local.get $fd) (call $iovec) (i32.const 1) (local.get $offset)
      (local.get $out)))
  ;; Where a plain write will go, left in the arena: the end if the file is in append mode.
  (func $write_position (param $fd i32) (result i32)
    (local $errno i32)
    (local.set $errno (call $real_fd_fdstat_get (local.get $fd) (call $stat_cell)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (if (i32.and (i32.load16_u offset=2 (call $stat_cell)) (i32.const 1))
      (then
        (local.set $errno (call $real_fd_filestat_get (local.get $fd) (call $stat_cell)))
        (i64.store offset=@AT_CLOCK (global.get $arena)
          (i64.load offset=@AT_STAT_SIZE (global.get $arena)))
        (return (local.get $errno))))
    (call $real_fd_tell (local.get $fd) (i32.add (global.get $arena) (i32.const @AT_CLOCK))))
  ;; Append the private iovec's bytes to what was captured; past the limit the call ends.
  (func $capture (param $fd i32) (param $len i32)
    (local $room i32) (local $at i32) (local $taken i32)
    (local.set $room (i32.sub (global.get $output_limit)
      (i32.add (global.get $stdout_len) (global.get $stderr_len))))
    (local.set $taken (call $min (local.get $len) (local.get $room)))
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then
        (local.set $at (i32.add (i32.add (global.get $arena) (i32.const @AT_STDOUT))
          (global.get $stdout_len)))
        (global.set $stdout_len (i32.add (global.get $stdout_len) (local.get $taken))))
      (else
        (local.set $at (i32.add (i32.add (global.get $arena) (i32.const @AT_STDERR))
          (global.get $stderr_len)))
        (global.set $stderr_len (i32.add (global.get $stderr_len) (local.get $taken)))))
    (if (local.get $taken)
      (then (memory.copy (local.get $at)
        (i32.load offset=@AT_IOVEC (global.get $arena)) (local.get $taken))))
    (if (i32.gt_u (local.get $len) (local.get $room)) (then (call $stop (i32.const @STOP_OUTPUT)))))

  ;; ------------------------------------------------------------------ directories
  ;; The host's order is not defined, so the whole listing is read into the arena and sorted by
  ;; name; a cookie is an index in that order. Inode numbers are constant. A listing that does
  ;; not fit the arena is refused.
  (func (export "fd_readdir") (param $fd i32) (param $buf i32) (param $len i32) (param $cookie i64)
      (param $used i32) (result i32)
    (local $errno i32) (local $count i32) (local $i i32) (local $entry i32) (local $size i32)
    (local $room i32)
    (call $burn (i32.const @COST_PATH))
    (local.set $errno (call $list_directory (local.get $fd)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $count (i32.load offset=@AT_COUNT (global.get $arena)))
    (if (local.get $count) (then (call $sort_entries (local.get $count))))
    (local.set $room (local.get $len))
    (i32.store (local.get $used) (i32.const 0))
    (if (i64.ge_u (local.get $cookie) (i64.extend_i32_u (local.get $count)))
      (then (return (i32.const 0))))
    (local.set $i (i32.wrap_i64 (local.get $cookie)))
    (block $done
      (loop $next
        (br_if $done (i32.or (i32.eqz (local.get $room)) (i32.ge_u (local.get $i) (local.get $count))))
        (local.set $entry (call $entry_at (local.get $i)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (i64.store (local.get $entry) (i64.extend_i32_u (local.get $i)))
        (i64.store offset=8 (local.get $entry) (i64.const 1))
        (local.set $size (call $min (local.get $room)
          (i32.add (i32.const 24) (i32.load offset=16 (local.get $entry)))))
        (memory.copy (local.get $buf) (local.get $entry) (local.get $size))
        (local.set $buf (i32.add (local.get $buf) (local.get $size)))
        (local.set $room (i32.sub (local.get $room) (local.get $size)))
        (br $next)))
    (i32.store (local.get $used) (i32.sub (local.get $len) (local.get $room)))
    (i32.const 0))
  ;; Read all entries of a directory into the arena and index them; their number goes to AT_COUNT. What that
  ;; and the sorting cost depends on the names that are there, never on the order in which the host gives them.
  (func $list_directory (param $fd i32) (result i32)
    (local $errno i32) (local $end i32) (local $entry i32) (local $count i32) (local $used i32)
    (call $burn_transfer (i32.const @TRANSFER_BYTES))
    (local.set $entry (i32.add (global.get $arena) (i32.const @AT_LISTING)))
    (local.set $errno (call $real_fd_readdir (local.get $fd) (local.get $entry) (i32.const @LISTING_BYTES)
      (i64.const 0) (call $count_cell)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $used (i32.load (call $count_cell)))
    (if (i32.ge_u (local.get $used) (i32.const @LISTING_BYTES)) (then (return (i32.const @EOVERFLOW))))
    (local.set $end (i32.add (local.get $entry) (local.get $used)))
    (block $indexed
      (loop $index
        (br_if $indexed (i32.ge_u (local.get $entry) (local.get $end)))
        (if (i32.ge_u (local.get $count) (i32.const @ENTRIES)) (then (return (i32.const @EOVERFLOW))))
        (i32.store (call $slot (local.get $count)) (local.get $entry))
        (local.set $count (i32.add (local.get $count) (i32.const 1)))
        (local.set $entry (i32.add (local.get $entry)
          (i32.add (i32.const 24) (i32.load offset=16 (local.get $entry)))))
        (br $index)))
    (call $burn (i32.mul (local.get $count) (i32.const @COST_ENTRY)))
    (i32.store (call $count_cell) (local.get $count))
    (i32.const 0))
  (func $slot (param $i i32) (result i32)
    (i32.add (i32.add (global.get $arena) (i32.const @AT_INDEX)) (i32.shl (local.get $i) (i32.const 2))))
  (func $entry_at (param $i i32) (result i32) (i32.load (call $slot (local.get $i))))
  ;; Sort by name: a radix sort from the last byte to the first, one pass for each. It takes the same
  ;; instructions in whatever order the entries were, which a sort that compares them would not.
  (func $sort_entries (param $count i32)
    (local $from i32) (local $to i32) (local $at i32) (local $end i32) (local $byte i32) (local $sum i32)
    (local $cell i32)
    (local.set $from (call $slot (i32.const 0)))
    (local.set $to (i32.add (global.get $arena) (i32.const @AT_SPARE)))
    (local.set $byte (call $longest_name (local.get $count)))
    (call $burn (i32.mul (local.get $byte) (i32.add (i32.mul (local.get $count) (i32.const @COST_SORTED))
      (i32.const @COST_SORT_PASS))))
    (block $sorted
      (loop $pass
        (br_if $sorted (i32.eqz (local.get $byte)))
        (local.set $byte (i32.sub (local.get $byte) (i32.const 1)))
        (memory.fill (call $bucket (i32.const 0)) (i32.const 0) (i32.const 1028))
        (local.set $end (i32.add (local.get $from) (i32.shl (local.get $count) (i32.const 2))))
        ;; How many go into each bucket,
        (local.set $at (local.get $from))
        (loop $count_one
          (local.set $cell (call $bucket_of (i32.load (local.get $at)) (local.get $byte)))
          (i32.store (local.get $cell) (i32.add (i32.load (local.get $cell)) (i32.const 1)))
          (br_if $count_one (i32.lt_u
            (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))
        ;; where each begins,
        (local.set $sum (local.get $to))
        (local.set $cell (call $bucket (i32.const 0)))
        (loop $begin_one
          (local.set $at (i32.shl (i32.load (local.get $cell)) (i32.const 2)))
          (i32.store (local.get $cell) (local.get $sum))
          (local.set $sum (i32.add (local.get $sum) (local.get $at)))
          (br_if $begin_one (i32.lt_u
            (local.tee $cell (i32.add (local.get $cell) (i32.const 4))) (call $bucket (i32.const 257)))))
        ;; and into it.
        (local.set $at (local.get $from))
        (loop $place_one
          (local.set $cell (call $bucket_of (i32.load (local.get $at)) (local.get $byte)))
          (local.set $sum (i32.load (local.get $cell)))
          (i32.store (local.get $sum) (i32.load (local.get $at)))
          (i32.store (local.get $cell) (i32.add (local.get $sum) (i32.const 4)))
          (br_if $place_one (i32.lt_u
            (local.tee $at (i32.add (local.get $at) (i32.const 4))) (local.get $end))))
        (local.set $sum (local.get $from))
        (local.set $from (local.get $to))
        (local.set $to (local.get $sum))
        (br $pass)))
    (memory.copy (call $slot (i32.const 0)) (local.get $from) (i32.shl (local.get $count) (i32.const 2))))
  ;; The length of the longest name.
  (func $longest_name (param $count i32) (result i32)
    (local $longest i32) (local $len i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (local.set $len (i32.load offset=16 (call $entry_at (local.get $count))))
        (local.set $longest (select (local.get $len) (local.get $longest)
          (i32.gt_u (local.get $len) (local.get $longest))))
        (br $next)))
    (local.get $longest))
  (func $bucket (param $key i32) (result i32)
    (i32.add (i32.add (global.get $arena) (i32.const @AT_BUCKETS)) (i32.shl (local.get $key) (i32.const 2))))
  ;; The bucket of an entry by one byte of its name: the first if its name is shorter than that.
  (func $bucket_of (param $entry i32) (param $byte i32) (result i32)
    (call $bucket (select
      (i32.add (i32.load8_u offset=24 (i32.add (local.get $entry) (local.get $byte))) (i32.const 1))
      (i32.const 0)
      (i32.lt_u (local.get $byte) (i32.load offset=16 (local.get $entry))))))

  ;; ------------------------------------------------------------------ paths
  ;; Charge for a path and check where it lies: an errno if it is too long, or in the cells that the
  ;; wrappers work with, where it would change between a check and its use.
  (func $path_errno (param $path i32) (param $len i32) (result i32)
    (call $burn (i32.const @COST_PATH))
    (if (i32.gt_u (local.get $len) (i32.const @PATH_BYTES)) (then (return (i32.const @ENAMETOOLONG))))
    (if (i32.and
          (i32.gt_u (i32.add (local.get $path) (local.get $len)) (global.get $arena))
          (i32.lt_u (local.get $path) (i32.add (global.get $arena) (i32.const @AT_INDEX))))
      (then (return (i32.const @EFAULT))))
    (i32.const 0))
  ;; How many names a path is made of; goes_up then says whether one of them is "..".
  (func $path_depth (param $path i32) (param $len i32) (result i32)
    (local $depth i32) (local $size i32) (local $dots i32) (local $byte i32)
    (global.set $goes_up (i32.const 0))
    (loop $next
      (local.set $byte (i32.const 0x2f))
      (if (local.get $len) (then (local.set $byte (i32.load8_u (local.get $path)))))
      (if (i32.eq (local.get $byte) (i32.const 0x2f))                                   ;; "/"
        (then
          (if (i32.gt_u (local.get $size) (i32.and (i32.eq (local.get $size) (i32.const 1)) (local.get $dots)))
            (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
          (if (i32.and (i32.eq (local.get $size) (i32.const 2)) (i32.eq (local.get $dots) (i32.const 2)))
            (then (global.set $goes_up (i32.const 1))))
          (local.set $size (i32.const 0))
          (local.set $dots (i32.const 0)))
        (else
          (local.set $size (i32.add (local.get $size) (i32.const 1)))
          (local.set $dots (i32.add (local.get $dots) (i32.eq (local.get $byte) (i32.const 0x2e))))))
      (if (i32.eqz (local.get $len)) (then (return (local.get $depth))))
      (local.set $path (i32.add (local.get $path) (i32.const 1)))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (br $next))
    (unreachable))
  ;; Whether a name may come to be here: an errno if there is no scratch space, if it is to be made in
  ;; another directory than the scratch space by its whole path, or too deep.
  (func $place_errno (param $dir i32) (param $path i32) (param $len i32) (result i32)
    (if (i32.or (i32.eqz (call $scratch)) (i32.lt_u (local.get $dir) (i32.const @SCRATCH_FD)))
      (then (return (i32.const @EROFS))))
    (if (i32.ne (local.get $dir) (i32.const @SCRATCH_FD)) (then (return (i32.const @EPERM))))
    (select (i32.const @ENAMETOOLONG) (i32.const 0)
      (i32.gt_u (call $path_depth (local.get $path) (local.get $len)) (global.get $depth_limit))))
  ;; What is at a path, left in the stat cell; links are not followed. An errno.
  (func $look (param $dir i32) (param $path i32) (param $len i32) (result i32)
    (call $burn (i32.const @COST_PATH))
    (call $real_path_filestat_get (local.get $dir) (i32.const 0) (local.get $path) (local.get $len)
      (call $stat_cell)))
  (func $seen_size (result i64) (i64.load offset=@AT_STAT_SIZE (global.get $arena)))
  (func $seen_inode (result i64) (i64.load offset=8 (call $stat_cell)))
  (func $seen_type (result i32) (i32.load8_u offset=16 (call $stat_cell)))

  ;; The directory that a name is in: what is not among the program's files is in the scratch space.
  (func $layer (param $dir i32) (param $path i32) (param $len i32) (result i32)
    (if (i32.or (i32.ne (local.get $dir) (i32.const @APP_FD)) (i32.eqz (call $scratch)))
      (then (return (local.get $dir))))
    (select (i32.const @SCRATCH_FD) (local.get $dir)
      (i32.eq (call $look (local.get $dir) (local.get $path) (local.get $len)) (i32.const @ENOENT))))
  ;; /dev/null is an empty file of the root. It is opened for reading, and what is written to it is dropped.
  (func $names_null (param $dir i32) (param $path i32) (param $len i32) (result i32)
    (if (i32.or (i32.ne (local.get $dir) (i32.const 3)) (i32.ne (local.get $len) (i32.const 8)))
      (then (return (i32.const 0))))
    (i64.eq (i64.load align=1 (local.get $path)) (i64.const 0x6c6c756e2f766564)))       ;; "dev/null"
  (func $null_bit (param $fd i32) (result i64)
    (local.set $fd (i32.sub (local.get $fd) (i32.const @FIRST_FILE)))
    (if (i32.gt_u (local.get $fd) (i32.const 63)) (then (return (i64.const 0))))
    (i64.shl (i64.const 1) (i64.extend_i32_u (local.get $fd))))
  (func $is_null (param $fd i32) (result i32)
    (i64.ne (i64.and (global.get $nulls) (call $null_bit (local.get $fd))) (i64.const 0)))

  (func (export "path_open") (param $dir i32) (param $lookup i32) (param $path i32) (param $len i32)
      (param $oflags i32) (param $rights i64) (param $inheriting i64) (param $fdflags i32)
      (param $out i32) (result i32)
    (local $errno i32) (local $new i32) (local $size i64) (local $null i32)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $null (call $names_null (local.get $dir) (local.get $path) (local.get $len)))
    (if (local.get $null)
      (then
        (local.set $oflags (i32.and (local.get $oflags) (i32.const 2)))                 ;; O_DIRECTORY
        (local.set $rights (i64.and (local.get $rights) (i64.const @RIGHTS_TO_READ)))
        (local.set $fdflags (i32.const 0))))
    (if (i32.ge_s (global.get $open_files) (global.get $open_limit)) (then (return (i32.const @EMFILE))))
    (if (i32.and (local.get $oflags) (i32.const 1))                                     ;; O_CREAT
      (then
        (local.set $errno (call $place_errno (local.get $dir) (local.get $path) (local.get $len)))
        (if (local.get $errno) (then (return (local.get $errno))))))
    (if (i32.and (local.get $oflags) (i32.const 9))                                     ;; or O_TRUNC
      (then
        (if (call $look (local.get $dir) (local.get $path) (local.get $len))
          (then (local.set $new (i32.and (local.get $oflags) (i32.const 1))))
          (else (local.set $size (call $seen_size))))))
    (if (local.get $new) (then (call $charge_entry)))
    (local.set $errno (call $real_path_open (local.get $dir) (local.get $lookup) (local.get $path)
      (local.get $len) (local.get $oflags) (local.get $rights) (local.get $inheriting)
      (local.get $fdflags) (local.get $out)))
    (if (local.get $errno)
      (then (if (local.get $new) (then (call $uncharge_entry))))
      (else
        (global.set $open_files (i32.add (global.get $open_files) (i32.const 1)))
        (global.set $nulls (i64.and (global.get $nulls)
          (i64.xor (call $null_bit (i32.load (local.get $out))) (i64.const -1))))
        (if (local.get $null)
          (then (global.set $nulls
            (i64.or (global.get $nulls) (call $null_bit (i32.load (local.get $out)))))))
        (if (i32.and (local.get $oflags) (i32.const 8))
          (then (call $give_back (call $round_4k (local.get $size)))))))
    (local.get $errno))
  (func (export "path_filestat_get") (param $dir i32) (param $lookup i32) (param $path i32)
      (param $len i32) (param $out i32) (result i32)
    (local $errno i32)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $errno (call $real_path_filestat_get (local.get $dir) (local.get $lookup)
      (local.get $path) (local.get $len) (local.get $out)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (call $normalise_stat (local.get $out)
      (call $path_inode (local.get $dir) (local.get $path) (local.get $len)))
    (i32.const 0))
  (func (export "path_create_directory") (param $dir i32) (param $path i32) (param $len i32)
      (result i32)
    (local $errno i32)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $errno (call $place_errno (local.get $dir) (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (if (i32.eqz (call $look (local.get $dir) (local.get $path) (local.get $len)))
      (then (return (i32.const @EEXIST))))
    (call $charge_entry)
    (local.set $errno (call $real_path_create_directory (local.get $dir) (local.get $path)
      (local.get $len)))
    (if (local.get $errno) (then (call $uncharge_entry)))
    (local.get $errno))
  (func (export "path_remove_directory") (param $dir i32) (param $path i32) (param $len i32)
      (result i32)
    (local $errno i32)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $errno (call $real_path_remove_directory (local.get $dir) (local.get $path)
      (local.get $len)))
    (if (i32.eqz (local.get $errno)) (then (call $uncharge_entry)))
    (local.get $errno))
  (func (export "path_unlink_file") (param $dir i32) (param $path i32) (param $len i32) (result i32)
    (local $errno i32) (local $size i64)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $errno (call $look (local.get $dir) (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $size (call $seen_size))
    (local.set $errno (call $real_path_unlink_file (local.get $dir) (local.get $path)
      (local.get $len)))
    (if (i32.eqz (local.get $errno)) (then (call $forget_entry (local.get $size))))
    (local.get $errno))
  ;; A directory may not come to lie deeper than it was, or what is in it would be too deep.
  (func (export "path_rename") (param $dir i32) (param $path i32) (param $len i32)
      (param $new_dir i32) (param $new_path i32) (param $new_len i32) (result i32)
    (local $errno i32) (local $depth i32) (local $inode i64) (local $size i64) (local $replaces i32)
    (local.set $errno (call $path_errno (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $errno (call $path_errno (local.get $new_path) (local.get $new_len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $dir (call $layer (local.get $dir) (local.get $path) (local.get $len)))
    (local.set $new_dir (call $layer (local.get $new_dir) (local.get $new_path) (local.get $new_len)))
    (local.set $errno (call $place_errno (local.get $new_dir) (local.get $new_path) (local.get $new_len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (if (global.get $goes_up) (then (return (i32.const @EPERM))))
    (local.set $depth (call $path_depth (local.get $new_path) (local.get $new_len)))
    (local.set $errno (call $look (local.get $dir) (local.get $path) (local.get $len)))
    (if (local.get $errno) (then (return (local.get $errno))))
    (local.set $inode (call $seen_inode))
    (if (i32.eq (call $seen_type) (i32.const 3))
      (then
        (if (i32.or (i32.gt_u (local.get $depth) (call $path_depth (local.get $path) (local.get $len)))
              (global.get $goes_up))
          (then (return (i32.const @EPERM))))))
    (if (i32.eqz (call $look (local.get $new_dir) (local.get $new_path) (local.get $new_len)))
      (then
        ;; A directory was charged as an entry only, whatever size the host's file system gives it.
        (local.set $size (select (i64.const 0) (call $seen_size) (i32.eq (call $seen_type) (i32.const 3))))
        (local.set $replaces (i64.ne (call $seen_inode) (local.get $inode)))))
    (local.set $errno (call $real_path_rename (local.get $dir) (local.get $path) (local.get $len)
      (local.get $new_dir) (local.get $new_path) (local.get $new_len)))
    (if (i32.and (i32.eqz (local.get $errno)) (local.get $replaces))
      (then (call $forget_entry (local.get $size))))
    (local.get $errno))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const 0))

  ;; ------------------------------------------------------------------ refused
  ;; No links exist in what a guest sees, so none can be read; none can be made; there is no network.
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @EINVAL))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP))
  (func (export "sock_accept") (param i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP))
  (func (export "sock_shutdown") (param i32 i32) (result i32)
    (call $burn (i32.const @COST_DESCRIPTOR)) (i32.const @ENOTSUP)))
