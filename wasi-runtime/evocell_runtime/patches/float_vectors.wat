  ;; Whether any result is not a number though no operand is one, or infinite though all operands are finite: @LANES
  ;; numbers at a time, for data that has such numbers from the start. What cannot be looked at in this way is suspicious.
  (func $suspicious_@SHAPE (param $p i32) (param $s i32) (param $p0 i32) (param $s0 i32) (param $p1 i32) (param $s1 i32)
    (param $many i32) (result i32)
    (local $r v128) (local $a v128) (local $b v128) (local $r_nan v128) (local $seen v128) (local $back i32)
    (if (i32.or (i32.lt_s (local.get $many) (i32.const @LANES)) (i32.eqz (i32.and
        (i32.eq (local.get $s) (i32.const @SIZE))
        (i32.and (i32.or (i32.eqz (local.get $s0)) (i32.eq (local.get $s0) (i32.const @SIZE)))
          (i32.or (i32.eqz (local.get $s1)) (i32.eq (local.get $s1) (i32.const @SIZE)))))))
      (then (return (i32.const 1))))
    (loop $next
      (local.set $r (v128.load (local.get $p)))
      (local.set $a (if (result v128) (local.get $s0)
        (then (v128.load (local.get $p0))) (else (@SPLAT (local.get $p0)))))
      (local.set $b (if (result v128) (local.get $s1)
        (then (v128.load (local.get $p1))) (else (@SPLAT (local.get $p1)))))
      (local.set $r_nan (@SHAPE.ne (local.get $r) (local.get $r)))
      (local.set $seen (v128.or (local.get $seen) (v128.andnot
        (local.get $r_nan)
        (v128.or (@SHAPE.ne (local.get $a) (local.get $a)) (@SHAPE.ne (local.get $b) (local.get $b))))))
      (local.set $r (@SHAPE.sub (local.get $r) (local.get $r)))
      (local.set $a (@SHAPE.add (@SHAPE.sub (local.get $a) (local.get $a)) (@SHAPE.sub (local.get $b) (local.get $b))))
      (local.set $seen (v128.or (local.get $seen) (v128.andnot
        (v128.andnot (@SHAPE.ne (local.get $r) (local.get $r)) (local.get $r_nan))
        (@SHAPE.ne (local.get $a) (local.get $a)))))
      (local.set $p (i32.add (local.get $p) (i32.const 16)))
      (local.set $p0 (i32.add (local.get $p0) (i32.mul (local.get $s0) (i32.const @LANES))))
      (local.set $p1 (i32.add (local.get $p1) (i32.mul (local.get $s1) (i32.const @LANES))))
      (local.set $many (i32.sub (local.get $many) (i32.const @LANES)))
      (br_if $next (i32.ge_s (local.get $many) (i32.const @LANES)))
      ;; the rest together with some that have been looked at
      (if (i32.gt_s (local.get $many) (i32.const 0))
        (then
          (local.set $back (i32.sub (i32.const @LANES) (local.get $many)))
          (local.set $p (i32.sub (local.get $p) (i32.mul (local.get $back) (i32.const @SIZE))))
          (local.set $p0 (i32.sub (local.get $p0) (i32.mul (local.get $back) (local.get $s0))))
          (local.set $p1 (i32.sub (local.get $p1) (i32.mul (local.get $back) (local.get $s1))))
          (local.set $many (i32.const @LANES))
          (br $next))))
    (v128.any_true (local.get $seen)))

  ;; Whether numbers side by side are all smaller in size than a bound; those that fill no 64 bytes are not looked at.
  (func $within_@SHAPE (param $p i32) (param $many i32) (param $bound f64) (result i32)
    (local $fits v128) (local $bounds v128)
    (local.set $fits (v128.const i64x2 -1 -1))
    (local.set $bounds (@SHAPE.splat @BOUND))
    (loop $next
      (if (i32.ge_s (local.get $many) (i32.const @GROUP))
        (then
          (local.set $fits (v128.and (local.get $fits)
            (v128.and
              (v128.and
                (@SHAPE.lt (@SHAPE.abs (v128.load (local.get $p))) (local.get $bounds))
                (@SHAPE.lt (@SHAPE.abs (v128.load offset=16 (local.get $p))) (local.get $bounds)))
              (v128.and
                (@SHAPE.lt (@SHAPE.abs (v128.load offset=32 (local.get $p))) (local.get $bounds))
                (@SHAPE.lt (@SHAPE.abs (v128.load offset=48 (local.get $p))) (local.get $bounds))))))
          (local.set $p (i32.add (local.get $p) (i32.const 64)))
          (local.set $many (i32.sub (local.get $many) (i32.const @GROUP)))
          (br $next))))
    (i32x4.all_true (local.get $fits)))
