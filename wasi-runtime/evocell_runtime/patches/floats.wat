;; Floating-point errors of numpy, found in what its loops were given and gave.
;; WebAssembly's arithmetic keeps no status flags. numpy's own word of flags (the C code sets it where it knows of an
;; error) is there; these functions add to it what a processor would have set.
(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "stack_pointer" (global $sp (mut i32)))
  (import "interpreter" "table" (table 0 funcref))
  (import "interpreter" "npy_get_floatstatus_barrier" (func $status (param i32) (result i32)))
  (import "interpreter" "npy_clear_floatstatus_barrier" (func $clear (param i32) (result i32)))
  (import "interpreter" "PyUFunc_GiveFloatingpointErrors" (func $give (param i32 i32) (result i32)))
  (import "interpreter" "PyFloat_AsDouble" (func $as_double (param i32) (result f64)))
  (import "interpreter" "PyComplex_AsCComplex" (func $as_complex (param i32 i32)))
  (import "interpreter" "PyErr_Clear" (func $err_clear))
  (import "interpreter" "PyErr_Occurred" (func $err_occurred (result i32)))
  (import "interpreter" "_Py_Dealloc" (func $dealloc (param i32)))
  (import "interpreter" "__trunctfdf2" (func $narrow (param i64 i64) (result f64)))
  (import "original" "generic_wrapped_legacy_loop"
    (func $plain (param i32 i32 i32 i32 i32) (result i32)))
  (import "original" "_get_bufsize_errmask" (func $errmask (param i32 i32) (result i32)))
  (import "original" "cblas_matrixproduct" (func $cblas (param i32 i32 i32 i32) (result i32)))
  (type $dot (func (param i32 i32 i32 i32 i32 i32 i32)))
  (type $transfer (func (param i32 i32 i32 i32 i32) (result i32)))

  ;; The word of flags: 1 invalid, 4 divide, 8 overflow, 16 underflow. Its upper bits are ours: 256 says that the
  ;; operation at hand asks for underflow, 512 that one has asked before.
  (func $raise (param $flags i32)
    (i32.store (i32.const 27608152) (i32.or (i32.load (i32.const 27608152)) (local.get $flags))))
  (func $asks (param $bit i32) (result i32)
    (i32.and (i32.load (i32.const 27608152)) (local.get $bit)))

  (func (export "_get_bufsize_errmask") (param $size i32) (param $mask i32) (result i32)
    (local $word i32) (local $result i32)
    (local.set $result (call $errmask (local.get $size) (local.get $mask)))
    (local.set $word (i32.and (i32.load (i32.const 27608152)) (i32.const -257)))
    (if (i32.and (i32.load (local.get $mask)) (i32.const 0x1c0))
      (then (local.set $word (i32.or (local.get $word) (i32.const 768)))))
    (i32.store (i32.const 27608152) (local.get $word))
    (local.get $result))

  ;; Types by number: 0-10 integers, 11-13 float, double, long double, 14-16 complex, 23 half.
  (func $is_real (param $type i32) (result i32)
    (i32.or (i32.lt_u (i32.sub (local.get $type) (i32.const 11)) (i32.const 3))
      (i32.eq (local.get $type) (i32.const 23))))
  (func $is_float (param $type i32) (result i32)
    (i32.or (i32.lt_u (i32.sub (local.get $type) (i32.const 11)) (i32.const 6))
      (i32.eq (local.get $type) (i32.const 23))))
  (func $is_complex (param $type i32) (result i32)
    (i32.lt_u (i32.sub (local.get $type) (i32.const 14)) (i32.const 3)))
  (func $part (param $type i32) (result i32)  ;; the type of a complex number's parts
    (select (i32.sub (local.get $type) (i32.const 3)) (local.get $type) (call $is_complex (local.get $type))))
  (func $size (param $type i32) (result i32)
    (block $one (block $two (block $four (block $eight (block $sixteen (block $other
      (br_table $one $one $one $two $two $four $four $four $four $eight $eight
        $four $eight $sixteen $eight $sixteen $other
        $other $other $other $other $other $other $two $other (local.get $type)))
      (return (i32.const 32)))  ;; only complex long double is asked for
      (return (i32.const 16)))
      (return (i32.const 8)))
      (return (i32.const 4)))
      (return (i32.const 2)))
    (i32.const 1))

  ;; What a number is: 1 NaN, 2 infinite, 4 zero, 8 subnormal, 16 one or minus one, 0 another.
  (func $class_bits (param $bits i64) (param $infinite i64) (param $normal i64) (param $one i64) (result i32)
    (if (i64.eqz (local.get $bits)) (then (return (i32.const 4))))
    (if (i64.eq (local.get $bits) (local.get $one)) (then (return (i32.const 16))))
    (if (i64.lt_u (local.get $bits) (local.get $normal)) (then (return (i32.const 8))))
    (if (i64.lt_u (local.get $bits) (local.get $infinite)) (then (return (i32.const 0))))
    (select (i32.const 2) (i32.const 1) (i64.eq (local.get $bits) (local.get $infinite))))
  (func $class_double (param $value f64) (result i32)
    (call $class_bits (i64.and (i64.reinterpret_f64 (local.get $value)) (i64.const 0x7fffffffffffffff))
      (i64.const 0x7ff0000000000000) (i64.const 0x0010000000000000) (i64.const 0x3ff0000000000000)))
  (func $class_part (param $at i32) (param $type i32) (result i32)
    (local $high i64)
    (if (i32.eq (local.get $type) (i32.const 12)) (then (return (call $class_double (f64.load (local.get $at))))))
    (if (i32.eq (local.get $type) (i32.const 11))
      (then (return (call $class_bits (i64.and (i64.load32_u (local.get $at)) (i64.const 0x7fffffff))
        (i64.const 0x7f800000) (i64.const 0x00800000) (i64.const 0x3f800000)))))
    (if (i32.eq (local.get $type) (i32.const 23))
      (then (return (call $class_bits (i64.and (i64.load16_u (local.get $at)) (i64.const 0x7fff))
        (i64.const 0x7c00) (i64.const 0x0400) (i64.const 0x3c00)))))
    (if (i32.eq (local.get $type) (i32.const 13))
      (then
        ;; the low half only matters for what it adds to the high one
        (local.set $high (i64.shl (i64.load offset=8 (local.get $at)) (i64.const 1)))
        (local.set $high (i64.or (i64.shr_u (local.get $high) (i64.const 1))
          (i64.extend_i32_u (i64.ne (i64.load (local.get $at)) (i64.const 0)))))
        (return (call $class_bits (local.get $high) (i64.const 0x7fff000000000000) (i64.const 0x0001000000000000)
          (i64.const 0x3fff000000000000)))))
    (if (i32.lt_u (local.get $type) (i32.const 3))
      (then (return (i32.shl (i32.eqz (i32.load8_u (local.get $at))) (i32.const 2)))))
    (if (i32.lt_u (local.get $type) (i32.const 5))
      (then (return (i32.shl (i32.eqz (i32.load16_u (local.get $at))) (i32.const 2)))))
    (if (i32.lt_u (local.get $type) (i32.const 9))
      (then (return (i32.shl (i32.eqz (i32.load (local.get $at))) (i32.const 2)))))
    (if (i32.lt_u (local.get $type) (i32.const 11))
      (then (return (i32.shl (i64.eqz (i64.load (local.get $at))) (i32.const 2)))))
    (i32.const 0))
  (func $class (param $at i32) (param $type i32) (result i32)
    (if (result i32) (call $is_complex (local.get $type))
      (then (call $class_of_two
        (call $class_part (local.get $at) (call $part (local.get $type)))
        (call $class_part (i32.add (local.get $at) (call $size (call $part (local.get $type))))
          (call $part (local.get $type)))))
      (else (call $class_part (local.get $at) (local.get $type)))))
  (func $class_of_two (param $real i32) (param $imaginary i32) (result i32)
    (i32.or
      (i32.and (i32.or (local.get $real) (local.get $imaginary)) (i32.const 3))
      (i32.or
        (i32.and (i32.and (local.get $real) (local.get $imaginary)) (i32.const 4))
        (i32.or
          (select (i32.and (local.get $real) (i32.const 16)) (i32.const 0)
            (i32.eq (local.get $imaginary) (i32.const 4)))
          (select (i32.and (local.get $imaginary) (i32.const 16)) (i32.const 0)
            (i32.eq (local.get $real) (i32.const 4)))))))

  ;; Whether numbers are all finite. A sum is not if a summand is not; that it may overflow is an alarm that a closer
  ;; look ends.
  (func $finite (param $at i32) (param $step i32) (param $many i32) (param $type i32) (result i32)
    (local $end i32) (local $seen v128) (local $v v128)
    (if (i32.and (call $is_complex (local.get $type))
        (i32.eq (local.get $step) (call $size (local.get $type))))
      (then
        (local.set $step (i32.shr_u (local.get $step) (i32.const 1)))
        (local.set $many (i32.shl (local.get $many) (i32.const 1)))
        (local.set $type (call $part (local.get $type)))))
    (if (i32.eq (local.get $step) (call $size (local.get $type)))
      (then
      (if (i32.eq (local.get $type) (i32.const 12))
        (then
          (local.set $end (i32.add (local.get $at)
            (i32.shl (i32.and (local.get $many) (i32.const -16)) (i32.const 3))))
          (local.set $many (i32.and (local.get $many) (i32.const 15)))
          (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
            (local.set $v
              (f64x2.add (f64x2.add (f64x2.add (v128.load (local.get $at))
                (v128.load offset=16 (local.get $at)))
                (f64x2.add (v128.load offset=32 (local.get $at))
                (v128.load offset=48 (local.get $at))))
                (f64x2.add (f64x2.add (v128.load offset=64 (local.get $at))
                (v128.load offset=80 (local.get $at)))
                (f64x2.add (v128.load offset=96 (local.get $at))
                (v128.load offset=112 (local.get $at))))))
            (local.set $seen (v128.or (local.get $seen) (f64x2.sub (local.get $v) (local.get $v))))
            (local.set $at (i32.add (local.get $at) (i32.const 128)))
            (br $next)))
          (if (v128.any_true (local.get $seen)) (then (return (i32.const 0))))))
      (if (i32.eq (local.get $type) (i32.const 11))
        (then
          (local.set $end (i32.add (local.get $at)
            (i32.shl (i32.and (local.get $many) (i32.const -16)) (i32.const 2))))
          (local.set $many (i32.and (local.get $many) (i32.const 15)))
          (block $done (loop $next
            (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
            (local.set $v
              (f32x4.add (f32x4.add (v128.load (local.get $at))
                (v128.load offset=16 (local.get $at)))
                (f32x4.add (v128.load offset=32 (local.get $at))
                (v128.load offset=48 (local.get $at)))))
            (local.set $seen (v128.or (local.get $seen) (f32x4.sub (local.get $v) (local.get $v))))
            (local.set $at (i32.add (local.get $at) (i32.const 64)))
            (br $next)))
          (if (v128.any_true (local.get $seen)) (then (return (i32.const 0))))))))
    (if (i32.eq (local.get $type) (i32.const 12))
      (then
        (loop $next
          (if (i32.gt_s (local.get $many) (i32.const 0))
            (then
              (if (i64.eq (i64.and (i64.load (local.get $at)) (i64.const 0x7ff0000000000000))
                  (i64.const 0x7ff0000000000000))
                (then (return (i32.const 0))))
              (local.set $at (i32.add (local.get $at) (local.get $step)))
              (local.set $many (i32.sub (local.get $many) (i32.const 1)))
              (br $next))))
        (return (i32.const 1))))
    (loop $next
      (if (i32.gt_s (local.get $many) (i32.const 0))
        (then
          (if (i32.and (call $class (local.get $at) (local.get $type)) (i32.const 3)) (then (return (i32.const 0))))
          (local.set $at (i32.add (local.get $at) (local.get $step)))
          (local.set $many (i32.sub (local.get $many) (i32.const 1)))
          (br $next))))
    (i32.const 1))

  ;; The flags of one operation, from the classes of its result and its operands.
  ;; How: 1 two operands, 2 the result may have underflowed, 16 it is a quotient that is rounded down, 32 the last operand
  ;; is compared with something, 64 both are, 128 it can only overflow.
  (func $judge (param $result i32) (param $a i32) (param $b i32) (param $how i32) (result i32)
    (local $given i32) (local $flags i32)
    (local.set $given (i32.or (local.get $a) (local.get $b)))
    (if (i32.and (local.get $result) (i32.const 1))
      (then (if (i32.eqz (i32.and (local.get $given) (i32.const 1))) (then (local.set $flags (i32.const 1))))))
    (if (i32.and (local.get $result) (i32.const 2))
      (then (if (i32.eqz (i32.and (local.get $given) (i32.const 3)))
        (then (local.set $flags (i32.or (local.get $flags)
          ;; an operand at a pole: division by 0, 0 to a negative power, logarithms at 0, log1p(-1), arctanh(1)
          (select (i32.const 4) (i32.const 8)
            (i32.and (local.get $given)
              (select (i32.const 4) (i32.const 20) (i32.and (local.get $how) (i32.const 1)))))))))))
    (if (i32.and (local.get $how) (i32.const 2))
      (then (if (i32.and (local.get $result) (i32.const 12))
        (then (if (i32.eqz (i32.and (local.get $given) (i32.const 7)))
          ;; times or divided by one is exact
          (then (if (i32.or (i32.and (local.get $result) (i32.const 4)) (i32.eqz (i32.and (local.get $given) (i32.const 16))))
            (then (local.set $flags (i32.or (local.get $flags) (i32.const 16)))))))))))
    ;; what is left of an infinite quotient is looked at, and a comparison with what is not a number is invalid
    (if (i32.and (i32.and (i32.ne (i32.and (local.get $how) (i32.const 16)) (i32.const 0))
        (i32.shr_u (local.get $flags) (i32.const 3))) (i32.const 1))
      (then (local.set $flags (i32.or (local.get $flags) (i32.const 1)))))
    (if (i32.and (local.get $how) (i32.const 96))
      (then (if (i32.and (i32.const 1)
          (select (local.get $given)
            (select (local.get $b) (local.get $a) (i32.and (local.get $how) (i32.const 1)))
            (i32.and (local.get $how) (i32.const 64))))
        (then (local.set $flags (i32.or (local.get $flags) (i32.const 1)))))))
    (select (i32.and (local.get $flags) (i32.const 8)) (local.get $flags) (i32.and (local.get $how) (i32.const 128))))

  (func $name_of (param $ufunc i32) (result i32)  ;; the first four letters
    (i32.load align=1 (i32.load offset=40 (local.get $ufunc))))

  ;; How to judge the results of a ufunc, by its name and the type of its operands.
  (func $manner (param $ufunc i32) (param $type i32) (result i32)
    (local $name i32) (local $two i32)
    (local.set $name (call $name_of (local.get $ufunc)))
    (local.set $two (i32.eq (i32.load offset=8 (local.get $ufunc)) (i32.const 2)))
    (if (i32.eq (local.get $name) (i32.const 0x61676f6c))  ;; logaddexp, logaddexp2
      (then (return (i32.const 65))))
    (if (i32.or (i32.eq (local.get $name) (i32.const 0x7478656e))  ;; nextafter: where to is no operand
          (i32.eq (local.get $name) (i32.const 0x63617073)))  ;; spacing
      (then (return (i32.const 128))))
    (if (i32.or (i32.eq (local.get $name) (i32.const 0x6f6f6c66)) (i32.eq (local.get $name) (i32.const 0x6d766964)))
      (then  ;; floor_divide, divmod; halves are divided as floats
        (return (i32.or (local.get $two) (i32.shl (i32.ne (local.get $type) (i32.const 23)) (i32.const 4))))))
    (if (i32.and (call $is_complex (local.get $type))  ;; divide, reciprocal
        (i32.or (i32.eq (local.get $name) (i32.const 0x69766964)) (i32.eq (local.get $name) (i32.const 0x69636572))))
      (then (return (i32.or (local.get $two) (i32.or (i32.const 32) (call $may_underflow (local.get $ufunc)))))))
    (i32.or (local.get $two) (call $may_underflow (local.get $ufunc))))

  ;; Whether results of a ufunc may underflow, by its name: 2 or 0.
  (func $may_underflow (param $ufunc i32) (result i32)
    (local $name i32)
    (if (i32.eqz (call $asks (i32.const 256))) (then (return (i32.const 0))))
    (local.set $name (call $name_of (local.get $ufunc)))
    (i32.shl
      (i32.or (i32.eq (local.get $name) (i32.const 0x746c756d))  ;; multiply
      (i32.or (i32.eq (local.get $name) (i32.const 0x69766964))  ;; divide, and divmod
      (i32.or (i32.eq (local.get $name) (i32.const 0x61757173))  ;; square
      (i32.or (i32.eq (local.get $name) (i32.const 0x00707865))  ;; exp
      (i32.or (i32.eq (local.get $name) (i32.const 0x32707865))  ;; exp2
      (i32.or (i32.eq (local.get $name) (i32.const 0x65776f70))  ;; power
      (i32.or (i32.eq (local.get $name) (i32.const 0x616f6c66))  ;; float_power
      (i32.or (i32.eq (local.get $name) (i32.const 0x6564646c))  ;; ldexp
              (i32.eq (local.get $name) (i32.const 0x69636572))))))))))  ;; reciprocal
      (i32.const 1)))

  (func $type_of (param $descriptors i32) (param $place i32) (result i32)
    (i32.load offset=16
      (i32.load (i32.add (local.get $descriptors) (i32.shl (local.get $place) (i32.const 2))))))
  (func $at (param $array i32) (param $place i32) (result i32)
    (i32.load (i32.add (local.get $array) (i32.shl (local.get $place) (i32.const 2)))))

  (func $judge_part (param $p i32) (param $p0 i32) (param $p1 i32) (param $offset i32) (param $type i32) (result i32)
    (call $judge
      (call $class (i32.add (local.get $p) (local.get $offset)) (local.get $type))
      (call $class (i32.add (local.get $p0) (local.get $offset)) (local.get $type))
      (call $class (i32.add (local.get $p1) (local.get $offset)) (local.get $type))
      (i32.const 1)))

  ;; Judge the results of a loop over numbers that are still what they were.
  (func $check (param $ufunc i32) (param $descriptors i32) (param $args i32) (param $many i32) (param $steps i32)
    (local $nin i32) (local $place i32) (local $type i32) (local $how i32) (local $flags i32) (local $wanted i32)
    (local $i i32) (local $class i32) (local $t0 i32) (local $t1 i32) (local $halves i32)
    (local $p0 i32) (local $p1 i32) (local $p i32) (local $s0 i32) (local $s1 i32) (local $s i32)
    (local.set $nin (i32.load offset=8 (local.get $ufunc)))
    (local.set $place (local.get $nin))
    (local.set $t0 (call $type_of (local.get $descriptors) (i32.const 0)))
    (local.set $how (call $manner (local.get $ufunc) (local.get $t0)))
    (local.set $wanted (select (i32.const 15) (i32.const 3) (i32.and (local.get $how) (i32.const 2))))
    (local.set $s0 (i32.load (local.get $steps)))
    (if (i32.and (local.get $how) (i32.const 1))
      (then
        (local.set $t1 (call $type_of (local.get $descriptors) (i32.const 1)))
        (local.set $s1 (i32.load offset=4 (local.get $steps)))))
    ;; sums and differences of complex numbers are those of their parts
    (if (i32.and (call $is_complex (local.get $t0))
        (i32.or (i32.eq (i32.load offset=24 (local.get $ufunc)) (i32.const 26454288))
          (i32.eq (i32.load offset=24 (local.get $ufunc)) (i32.const 26458048))))
      (then (local.set $halves (call $part (local.get $t0)))))
    (loop $outputs
      (local.set $type (call $type_of (local.get $descriptors) (local.get $place)))
      (local.set $p (call $at (local.get $args) (local.get $place)))
      (local.set $s (call $at (local.get $steps) (local.get $place)))
      (block $good
        (br_if $good (i32.eqz (call $is_float (local.get $type))))
        (br_if $good (i32.and
          (i32.eq (local.get $wanted) (i32.const 3))
          (call $finite (local.get $p) (local.get $s) (local.get $many) (local.get $type))))
        (local.set $p0 (i32.load (local.get $args)))
        (local.set $p1 (i32.load offset=4 (local.get $args)))
        (local.set $i (local.get $many))
        (if (i32.and (i32.eqz (i32.and (local.get $how) (i32.const 192)))
            (i32.and (i32.eq (local.get $wanted) (i32.const 3)) (i32.eq (local.get $type) (local.get $t0))))
          (then (if (i32.or (i32.eqz (i32.and (local.get $how) (i32.const 1))) (i32.eq (local.get $t0) (local.get $t1)))
            (then (br_if $good (i32.eqz (call $suspicious (local.get $type)
              (local.get $p) (local.get $s) (local.get $p0) (local.get $s0)
              (select (local.get $p1) (local.get $p0) (i32.and (local.get $how) (i32.const 1)))
              (select (local.get $s1) (local.get $s0) (i32.and (local.get $how) (i32.const 1)))
              (local.get $many))))))))
        (loop $numbers
          (local.set $class (call $class (local.get $p) (local.get $type)))
          (if (i32.and (local.get $class) (local.get $wanted))
            (then
              (local.set $flags (i32.or (local.get $flags)
                (if (result i32) (local.get $halves)
                  (then (i32.or
                    (call $judge_part (local.get $p) (local.get $p0) (local.get $p1) (i32.const 0) (local.get $halves))
                    (call $judge_part (local.get $p) (local.get $p0) (local.get $p1)
                      (call $size (local.get $halves)) (local.get $halves))))
                  (else
                (call $judge (local.get $class)
                  (call $class (local.get $p0) (local.get $t0))
                  (if (result i32) (i32.and (local.get $how) (i32.const 1))
                    (then (call $class (local.get $p1) (local.get $t1)))
                    (else (i32.const 0)))
                  (local.get $how))))))
              (br_if $good (i32.eq (local.get $flags) (i32.const 29)))))
          (local.set $p (i32.add (local.get $p) (local.get $s)))
          (local.set $p0 (i32.add (local.get $p0) (local.get $s0)))
          (local.set $p1 (i32.add (local.get $p1) (local.get $s1)))
          (local.set $i (i32.sub (local.get $i) (i32.const 1)))
          (br_if $numbers (local.get $i))))
      (local.set $place (i32.add (local.get $place) (i32.const 1)))
      (br_if $outputs (i32.lt_u (local.get $place) (i32.load offset=16 (local.get $ufunc)))))
    (if (local.get $flags) (then (call $raise (local.get $flags)))))

@VECTORS@
  (func $suspicious (param $type i32) (param $p i32) (param $s i32) (param $p0 i32) (param $s0 i32) (param $p1 i32)
    (param $s1 i32) (param $many i32) (result i32)
    (if (i32.eq (local.get $type) (i32.const 12))
      (then (return (call $suspicious_f64x2 (local.get $p) (local.get $s) (local.get $p0) (local.get $s0)
        (local.get $p1) (local.get $s1) (local.get $many)))))
    (if (i32.eq (local.get $type) (i32.const 11))
      (then (return (call $suspicious_f32x4 (local.get $p) (local.get $s) (local.get $p0) (local.get $s0)
        (local.get $p1) (local.get $s1) (local.get $many)))))
    (i32.const 1))

  ;; What numbers are, all together.
  (func $classes (param $at i32) (param $step i32) (param $many i32) (param $type i32) (result i32)
    (local $all i32)
    (loop $next
      (if (i32.gt_s (local.get $many) (i32.const 0))
        (then
          (local.set $all (i32.or (local.get $all) (call $class (local.get $at) (local.get $type))))
          (local.set $at (i32.add (local.get $at) (local.get $step)))
          (local.set $many (i32.sub (local.get $many) (i32.const 1)))
          (br_if $next (i32.eqz (i32.and (local.get $all) (i32.const 1)))))))
    (local.get $all))

  ;; Judge a result that many numbers went into, one after the other or in any order.
  (func $judge_many (param $result i32) (param $given i32) (param $divides i32) (param $how i32) (result i32)
    (local $flags i32)
    (if (i32.and (local.get $given) (i32.const 1)) (then (return (i32.const 0))))
    (if (i32.and (local.get $result) (i32.const 1))
      (then
        (local.set $flags (i32.const 1))
        (if (i32.eqz (i32.or (i32.and (local.get $given) (i32.const 2)) (local.get $divides)))
          (then (local.set $flags (i32.const 9))))))
    (if (i32.and (local.get $result) (i32.const 2))
      (then (if (i32.eqz (i32.and (local.get $given) (i32.const 2)))
        (then (local.set $flags (i32.or (local.get $flags)
          (select (i32.const 4) (i32.const 8)
            (i32.and (local.get $divides) (i32.shr_u (local.get $given) (i32.const 2))))))))))
    (if (i32.and (local.get $how) (i32.const 2))
      (then (if (i32.and (i32.ne (i32.and (local.get $result) (i32.const 12)) (i32.const 0))
          (i32.eqz (i32.and (local.get $given) (i32.const 7))))
        (then (local.set $flags (i32.or (local.get $flags) (i32.const 16)))))))
    (local.get $flags))

  (func $reduce (param $context i32) (param $args i32) (param $dims i32) (param $steps i32) (param $aux i32)
    (param $ufunc i32) (param $type i32) (result i32)
    (local $first i32) (local $after i32) (local $result i32) (local $how i32) (local $name i32) (local $flags i32)
    (local.set $first (call $class (i32.load (local.get $args)) (local.get $type)))
    (local.set $result
      (call $plain (local.get $context) (local.get $args) (local.get $dims) (local.get $steps) (local.get $aux)))
    (local.set $after (call $class (i32.load offset=8 (local.get $args)) (local.get $type)))
    (local.set $how (call $may_underflow (local.get $ufunc)))
    (if (i32.and (local.get $after) (select (i32.const 15) (i32.const 3) (local.get $how)))
      (then
        (local.set $name (i32.load8_u (i32.load offset=40 (local.get $ufunc))))
        (local.set $flags (call $judge_many (local.get $after)
          (i32.or (local.get $first)
            (call $classes (i32.load offset=4 (local.get $args)) (i32.load offset=4 (local.get $steps))
              (i32.load (local.get $dims))
              (call $type_of (i32.load offset=8 (local.get $context)) (i32.const 1))))
          ;; divide, floor_divide, float_power, fmod, power, remainder
          (i32.or (i32.or (i32.eq (local.get $name) (i32.const 100)) (i32.eq (local.get $name) (i32.const 102)))
            (i32.or (i32.eq (local.get $name) (i32.const 112)) (i32.eq (local.get $name) (i32.const 114))))
          (local.get $how)))
        (local.set $how (call $manner (local.get $ufunc) (local.get $type)))
        (call $raise (i32.or (local.get $flags) (i32.and (i32.const 1) (i32.or
          (i32.and (i32.shr_u (local.get $how) (i32.const 6)) (local.get $after))
          (i32.and (i32.shr_u (local.get $how) (i32.const 4)) (i32.shr_u (local.get $flags) (i32.const 3)))))))))
    (local.get $result))

  (func $gather (param $to i32) (param $from i32) (param $step i32) (param $size i32) (param $many i32)
    (if (i32.eq (local.get $step) (local.get $size))
      (then
        (memory.copy (local.get $to) (local.get $from) (i32.mul (local.get $size) (local.get $many)))
        (return)))
    (if (i32.eq (local.get $size) (i32.const 8))
      (then
        (loop $next
          (i64.store (local.get $to) (i64.load (local.get $from)))
          (local.set $to (i32.add (local.get $to) (i32.const 8)))
          (local.set $from (i32.add (local.get $from) (local.get $step)))
          (local.set $many (i32.sub (local.get $many) (i32.const 1)))
          (br_if $next (local.get $many)))
        (return)))
    (loop $next
      (memory.copy (local.get $to) (local.get $from) (local.get $size))
      (local.set $to (i32.add (local.get $to) (local.get $size)))
      (local.set $from (i32.add (local.get $from) (local.get $step)))
      (local.set $many (i32.sub (local.get $many) (i32.const 1)))
      (br_if $next (local.get $many))))

  ;; A loop in pieces: judged while they are in the processor's cache, and where it writes over its operands, by a
  ;; copy of what the piece was. On the stack: two buffers of 16 KiB, and from 32768 on the pointers for the loop,
  ;; those to judge by, their steps (4 of each at most) and the length.
  (func $pieces (param $context i32) (param $args i32) (param $dims i32) (param $steps i32) (param $aux i32)
    (param $ufunc i32) (param $first i32) (param $second i32) (result i32)
    (local $frame i32) (local $i i32) (local $many i32) (local $place i32) (local $p i32) (local $s i32)
    (local $result i32) (local $left i32) (local $size i32) (local $descriptors i32) (local $most i32)
    (local.set $most (select (i32.const 512) (i32.const 1024) (i32.or (local.get $first) (local.get $second))))
    (local.set $frame (i32.sub (global.get $sp) (i32.const 32832)))
    (global.set $sp (local.get $frame))
    (local.set $descriptors (i32.load offset=8 (local.get $context)))
    (local.set $left (i32.load (local.get $dims)))
    (block $done (loop $next
      (br_if $done (i32.le_s (local.get $left) (i32.const 0)))
      (local.set $many (select (local.get $left) (local.get $most) (i32.lt_s (local.get $left) (local.get $most))))
      (i32.store offset=32816 (local.get $frame) (local.get $many))
      (local.set $place (i32.const 0))
      (loop $operands
        (local.set $p (i32.add (local.get $frame) (i32.shl (local.get $place) (i32.const 2))))
        (local.set $s (call $at (local.get $steps) (local.get $place)))
        (i32.store offset=32768 (local.get $p) (i32.add (call $at (local.get $args) (local.get $place))
          (i32.mul (local.get $i) (local.get $s))))
        (i32.store offset=32784 (local.get $p) (i32.load offset=32768 (local.get $p)))
        (i32.store offset=32800 (local.get $p) (local.get $s))
        (local.set $place (i32.add (local.get $place) (i32.const 1)))
        (br_if $operands (i32.lt_u (local.get $place) (i32.load offset=16 (local.get $ufunc)))))
      (if (local.get $first)
        (then
          (local.set $size (call $size (call $type_of (local.get $descriptors) (i32.const 0))))
          (call $gather (local.get $frame) (i32.load offset=32768 (local.get $frame)) (i32.load (local.get $steps))
            (local.get $size) (local.get $many))
          (i32.store offset=32784 (local.get $frame) (local.get $frame))
          (i32.store offset=32800 (local.get $frame) (local.get $size))))
      (if (local.get $second)
        (then
          (local.set $size (call $size (call $type_of (local.get $descriptors) (i32.const 1))))
          (call $gather (i32.add (local.get $frame) (i32.const 16384)) (i32.load offset=32772 (local.get $frame))
            (i32.load offset=4 (local.get $steps)) (local.get $size) (local.get $many))
          (i32.store offset=32788 (local.get $frame) (i32.add (local.get $frame) (i32.const 16384)))
          (i32.store offset=32804 (local.get $frame) (local.get $size))))
      (local.set $result (call $plain (local.get $context) (i32.add (local.get $frame) (i32.const 32768))
        (i32.add (local.get $frame) (i32.const 32816)) (local.get $steps) (local.get $aux)))
      (call $check (local.get $ufunc) (local.get $descriptors) (i32.add (local.get $frame) (i32.const 32784))
        (local.get $many) (i32.add (local.get $frame) (i32.const 32800)))
      (br_if $done (i32.lt_s (local.get $result) (i32.const 0)))
      (local.set $i (i32.add (local.get $i) (local.get $many)))
      (local.set $left (i32.sub (local.get $left) (local.get $many)))
      (br $next)))
    (global.set $sp (i32.add (local.get $frame) (i32.const 32832)))
    (local.get $result))

  (func (export "generic_wrapped_legacy_loop")
    (param $context i32) (param $args i32) (param $dims i32) (param $steps i32) (param $aux i32) (result i32)
    (local $ufunc i32) (local $functions i32) (local $nin i32) (local $nargs i32) (local $type i32)
    (local $out i32) (local $last i32) (local $first i32) (local $second i32) (local $result i32)
    (block $unjudged
      (local.set $ufunc (i32.load (local.get $context)))
      (br_if $unjudged (i32.eqz (local.get $ufunc)))
      ;; numpy's own ufuncs, by where their loops are listed; scipy's functions report nothing natively
      (local.set $functions (i32.load offset=24 (local.get $ufunc)))
      (br_if $unjudged (i32.eqz (i32.or
        (i32.lt_u (i32.sub (local.get $functions) (i32.const 26454112)) (i32.const 6720))
        (i32.lt_u (i32.sub (local.get $functions) (i32.const 27654128)) (i32.const 1696)))))
      (local.set $nin (i32.load offset=8 (local.get $ufunc)))
      (br_if $unjudged (i32.gt_u (local.get $nin) (i32.const 2)))
      (local.set $nargs (i32.load offset=16 (local.get $ufunc)))
      (br_if $unjudged (i32.le_s (i32.load (local.get $dims)) (i32.const 0)))
      (local.set $type (call $type_of (i32.load offset=8 (local.get $context)) (local.get $nin)))
      (if (i32.eqz (call $is_float (local.get $type)))
        (then
          (if (i32.eq (call $name_of (local.get $ufunc)) (i32.const 0x69636572))  ;; reciprocals of integers are quotients
            (then (if (i32.and (i32.const 4) (call $classes (i32.load (local.get $args)) (i32.load (local.get $steps))
                (i32.load (local.get $dims)) (local.get $type)))
              (then (call $raise (i32.const 5))))))
          (br $unjudged)))
      ;; absolute values of complex numbers are silent natively
      (br_if $unjudged (i32.and (i32.eq (call $name_of (local.get $ufunc)) (i32.const 0x6f736261))
        (call $is_complex (call $type_of (i32.load offset=8 (local.get $context)) (i32.const 0)))))
      (if (i32.load offset=64 (local.get $ufunc))
        (then (return (call $stack (local.get $context) (local.get $args) (local.get $dims) (local.get $steps)
          (local.get $aux) (local.get $ufunc) (local.get $type)))))
      (local.set $out (call $at (local.get $args) (local.get $nin)))
      (local.set $last (call $at (local.get $args) (i32.sub (local.get $nargs) (i32.const 1))))
      (local.set $first (i32.or
        (i32.eq (i32.load (local.get $args)) (local.get $out))
        (i32.eq (i32.load (local.get $args)) (local.get $last))))
      (if (i32.eq (local.get $nin) (i32.const 2))
        (then
          (local.set $second (i32.or
            (i32.eq (i32.load offset=4 (local.get $args)) (local.get $out))
            (i32.eq (i32.load offset=4 (local.get $args)) (local.get $last))))
          (if (i32.and (local.get $first)
              (i32.and (i32.gt_s (i32.load (local.get $dims)) (i32.const 1))
                (i32.eqz (i32.or (i32.load (local.get $steps)) (i32.load offset=8 (local.get $steps))))))
            (then (return (call $reduce (local.get $context) (local.get $args) (local.get $dims) (local.get $steps)
              (local.get $aux) (local.get $ufunc) (local.get $type)))))))
      (if (i32.or (i32.or (local.get $first) (local.get $second))
          (i32.gt_s (i32.load (local.get $dims)) (i32.const 1024)))
        (then (return (call $pieces (local.get $context) (local.get $args) (local.get $dims) (local.get $steps)
          (local.get $aux) (local.get $ufunc) (local.get $first) (local.get $second)))))
      (local.set $result
        (call $plain (local.get $context) (local.get $args) (local.get $dims) (local.get $steps) (local.get $aux)))
      (call $check (local.get $ufunc) (i32.load offset=8 (local.get $context)) (local.get $args)
        (i32.load (local.get $dims)) (local.get $steps))
      (return (local.get $result)))
    (call $plain (local.get $context) (local.get $args) (local.get $dims) (local.get $steps) (local.get $aux)))

@INDEXED@@PRODUCTS@
@CASTS@)
