  ;; Judge products of matrices: result (m, p) from (m, k) and (k, p), each with two strides.
  (func $products (param $o i32) (param $o_row i32) (param $o_col i32)
    (param $a i32) (param $a_row i32) (param $a_col i32)
    (param $b i32) (param $b_row i32) (param $b_col i32)
    (param $m i32) (param $k i32) (param $p i32) (param $type i32) (result i32)
    (local $i i32) (local $j i32) (local $class i32) (local $flags i32)
    (block $enough (loop $rows
      (br_if $enough (i32.ge_s (local.get $i) (local.get $m)))
      (if (i32.eqz (call $finite (local.get $o) (local.get $o_col) (local.get $p) (local.get $type)))
        (then
          (local.set $j (i32.const 0))
          (loop $cols
            (local.set $class (call $class
              (i32.add (local.get $o) (i32.mul (local.get $j) (local.get $o_col))) (local.get $type)))
            (if (i32.and (local.get $class) (i32.const 3))
              (then
                (local.set $flags (i32.or (local.get $flags) (call $judge_many (local.get $class)
                  (i32.or
                    (call $classes (local.get $a) (local.get $a_col) (local.get $k) (local.get $type))
                    (call $classes (i32.add (local.get $b) (i32.mul (local.get $j) (local.get $b_col)))
                      (local.get $b_row) (local.get $k) (local.get $type)))
                  (i32.const 0) (i32.const 0))))
                (br_if $enough (i32.eq (local.get $flags) (i32.const 9)))))
            (local.set $j (i32.add (local.get $j) (i32.const 1)))
            (br_if $cols (i32.lt_s (local.get $j) (local.get $p))))))
      (local.set $o (i32.add (local.get $o) (local.get $o_row)))
      (local.set $a (i32.add (local.get $a) (local.get $a_row)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $rows)))
    (local.get $flags))

  ;; A stack of products. The loop moves the pointers that it is given, so they are kept for the judgement.
  (func $stack (param $context i32) (param $args i32) (param $dims i32) (param $steps i32) (param $aux i32)
    (param $ufunc i32) (param $type i32) (result i32)
    (local $kept i32) (local $result i32)
    (local.set $kept (i32.sub (global.get $sp) (i32.const 16)))
    (global.set $sp (local.get $kept))
    (i64.store (local.get $kept) (i64.load align=4 (local.get $args)))
    (i32.store offset=8 (local.get $kept) (i32.load offset=8 (local.get $args)))
    (local.set $result
      (call $plain (local.get $context) (local.get $args) (local.get $dims) (local.get $steps) (local.get $aux)))
    (call $generalised (local.get $ufunc) (local.get $kept) (local.get $dims) (local.get $steps) (local.get $type))
    (global.set $sp (i32.add (local.get $kept) (i32.const 16)))
    (local.get $result))

  ;; matmul, matvec, vecdot and vecmat: many products, in the way of generalised ufuncs.
  (func $generalised (param $ufunc i32) (param $args i32) (param $dims i32) (param $steps i32) (param $type i32)
    (local $i i32) (local $name i32) (local $m i32) (local $k i32) (local $p i32)
    (local $a_row i32) (local $a_col i32) (local $b_row i32) (local $b_col i32) (local $o_row i32) (local $o_col i32)
    (local.set $name (i32.load offset=24 (local.get $ufunc)))
    (local.set $m (i32.const 1))
    (local.set $p (i32.const 1))
    (block $known
      (if (i32.eq (local.get $name) (i32.const 26459408))  ;; matmul
        (then
          (local.set $m (i32.load offset=4 (local.get $dims)))
          (local.set $k (i32.load offset=8 (local.get $dims)))
          (local.set $p (i32.load offset=12 (local.get $dims)))
          (local.set $a_row (i32.load offset=12 (local.get $steps)))
          (local.set $a_col (i32.load offset=16 (local.get $steps)))
          (local.set $b_row (i32.load offset=20 (local.get $steps)))
          (local.set $b_col (i32.load offset=24 (local.get $steps)))
          (local.set $o_row (i32.load offset=28 (local.get $steps)))
          (local.set $o_col (i32.load offset=32 (local.get $steps)))
          (br $known)))
      (if (i32.eq (local.get $name) (i32.const 26459488))  ;; matvec
        (then
          (local.set $m (i32.load offset=4 (local.get $dims)))
          (local.set $k (i32.load offset=8 (local.get $dims)))
          (local.set $a_row (i32.load offset=12 (local.get $steps)))
          (local.set $a_col (i32.load offset=16 (local.get $steps)))
          (local.set $b_row (i32.load offset=20 (local.get $steps)))
          (local.set $o_row (i32.load offset=24 (local.get $steps)))
          (br $known)))
      (if (i32.eq (local.get $name) (i32.const 26459808))  ;; vecdot
        (then
          (local.set $k (i32.load offset=4 (local.get $dims)))
          (local.set $a_col (i32.load offset=12 (local.get $steps)))
          (local.set $b_row (i32.load offset=16 (local.get $steps)))
          (br $known)))
      (if (i32.eq (local.get $name) (i32.const 26459888))  ;; vecmat
        (then
          (local.set $k (i32.load offset=4 (local.get $dims)))
          (local.set $p (i32.load offset=8 (local.get $dims)))
          (local.set $a_col (i32.load offset=12 (local.get $steps)))
          (local.set $b_row (i32.load offset=16 (local.get $steps)))
          (local.set $b_col (i32.load offset=20 (local.get $steps)))
          (local.set $o_col (i32.load offset=24 (local.get $steps)))
          (br $known)))
      (return))
    (loop $next
      (if (i32.lt_s (local.get $i) (i32.load (local.get $dims)))
        (then
          (call $raise (call $products
            (i32.add (i32.load offset=8 (local.get $args)) (i32.mul (local.get $i) (i32.load offset=8 (local.get $steps))))
            (local.get $o_row) (local.get $o_col)
            (i32.add (i32.load (local.get $args)) (i32.mul (local.get $i) (i32.load (local.get $steps))))
            (local.get $a_row) (local.get $a_col)
            (i32.add (i32.load offset=4 (local.get $args)) (i32.mul (local.get $i) (i32.load offset=4 (local.get $steps))))
            (local.get $b_row) (local.get $b_col)
            (local.get $m) (local.get $k) (local.get $p) (local.get $type)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))))

  ;; np.dot of more dimensions or of other types: one product of two vectors.
  (func (export "evocell.dotted") (param $a i32) (param $a_step i32) (param $b i32) (param $b_step i32) (param $o i32)
    (param $many i32) (param $unused i32) (param $function i32) (param $array i32)
    (local $type i32) (local $class i32)
    (call_indirect (type $dot) (local.get $a) (local.get $a_step) (local.get $b) (local.get $b_step) (local.get $o)
      (local.get $many) (local.get $unused) (local.get $function))
    (local.set $type (i32.load offset=16 (i32.load offset=28 (local.get $array))))
    (if (i32.eqz (call $is_float (local.get $type))) (then (return)))
    (local.set $class (call $class (local.get $o) (local.get $type)))
    (if (i32.and (local.get $class) (i32.const 3))
      (then (call $raise (call $judge_many (local.get $class)
        (i32.or
          (call $classes (local.get $a) (local.get $a_step) (local.get $many) (local.get $type))
          (call $classes (local.get $b) (local.get $b_step) (local.get $many) (local.get $type)))
        (i32.const 0) (i32.const 0))))))

  ;; np.dot of up to two dimensions. The original gives up the references to both operands.
  (func (export "cblas_matrixproduct") (param $descriptor i32) (param $a i32) (param $b i32) (param $into i32) (result i32)
    (local $type i32) (local $result i32) (local $flags i32)
    (local.set $type (i32.load offset=16 (local.get $descriptor)))
    (call $keep (local.get $a))
    (call $keep (local.get $b))
    (local.set $result (call $cblas (local.get $descriptor) (local.get $a) (local.get $b) (local.get $into)))
    (if (i32.and (i32.ne (local.get $result) (i32.const 0))
        (i32.and (i32.ne (i32.load offset=12 (local.get $a)) (i32.const 0))
          (i32.ne (i32.load offset=12 (local.get $b)) (i32.const 0))))
      (then
        (local.set $flags (call $dot (local.get $result) (local.get $a) (local.get $b) (local.get $type)))
        (if (local.get $flags)
          (then
            (drop (call $clear (local.get $a)))
            (call $raise (local.get $flags))
            (if (i32.lt_s (call $give (i32.const @DOT@) (call $status (local.get $a))) (i32.const 0))
              (then
                (call $release (local.get $result))
                (local.set $result (i32.const 0))))))))
    (call $release (local.get $a))
    (call $release (local.get $b))
    (local.get $result))
  (func $dot (param $o i32) (param $a i32) (param $b i32) (param $type i32) (result i32)
    (local $tall i32) (local $wide i32) (local $a_dims i32) (local $b_dims i32)
    (local $a_strides i32) (local $b_strides i32) (local $o_strides i32)
    ;; what was multiplied into another array may be that array
    (if (i32.or (i32.eq (i32.load offset=8 (local.get $o)) (i32.load offset=8 (local.get $a)))
        (i32.eq (i32.load offset=8 (local.get $o)) (i32.load offset=8 (local.get $b))))
      (then (return (i32.const 0))))
    (local.set $tall (i32.eq (i32.load offset=12 (local.get $a)) (i32.const 2)))
    (local.set $wide (i32.eq (i32.load offset=12 (local.get $b)) (i32.const 2)))
    (local.set $a_dims (i32.load offset=16 (local.get $a)))
    (local.set $b_dims (i32.load offset=16 (local.get $b)))
    (local.set $a_strides (i32.load offset=20 (local.get $a)))
    (local.set $b_strides (i32.load offset=20 (local.get $b)))
    (local.set $o_strides (i32.load offset=20 (local.get $o)))
    (call $products
      ;; of two vectors the product is a scalar, which has its value there
      (if (result i32) (i32.or (local.get $tall) (local.get $wide))
        (then (i32.load offset=8 (local.get $o)))
        (else (i32.add (local.get $o) (i32.const 8))))
      (if (result i32) (local.get $tall) (then (i32.load (local.get $o_strides))) (else (i32.const 0)))
      (if (result i32) (local.get $wide)
        (then (call $at (local.get $o_strides) (local.get $tall)))
        (else (i32.const 0)))
      (i32.load offset=8 (local.get $a))
      (if (result i32) (local.get $tall) (then (i32.load (local.get $a_strides))) (else (i32.const 0)))
      (call $at (local.get $a_strides) (local.get $tall))
      (i32.load offset=8 (local.get $b))
      (i32.load (local.get $b_strides))
      (if (result i32) (local.get $wide) (then (i32.load offset=4 (local.get $b_strides))) (else (i32.const 0)))
      (if (result i32) (local.get $tall) (then (i32.load (local.get $a_dims))) (else (i32.const 1)))
      (call $at (local.get $a_dims) (local.get $tall))
      (if (result i32) (local.get $wide) (then (i32.load offset=4 (local.get $b_dims))) (else (i32.const 1)))
      (local.get $type)))
  (func $keep (param $o i32)
    (if (i32.le_s (i32.load (local.get $o)) (i32.const 1073741823))
      (then (i32.store (local.get $o) (i32.add (i32.load (local.get $o)) (i32.const 1))))))
  (func $release (param $o i32)
    (if (i32.le_s (i32.load (local.get $o)) (i32.const 1073741823))
      (then
        (i32.store (local.get $o) (i32.sub (i32.load (local.get $o)) (i32.const 1)))
        (if (i32.eqz (i32.load (local.get $o))) (then (call $dealloc (local.get $o)))))))
