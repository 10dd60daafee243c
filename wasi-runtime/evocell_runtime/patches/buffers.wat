;; Arrays of 64-bit integers for extensions that ask for 32-bit indices. Layouts as in integers.wat; flags at 32.
(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "PyArray_DescrFromType" (func $descr (param i32) (result i32)))
  (import "interpreter" "PyArray_FromArray" (func $from_array (param i32 i32 i32) (result i32)))
  (import "interpreter" "PyType_IsSubtype" (func $subtype (param i32 i32) (result i32)))
  (import "interpreter" "PyErr_Clear" (func $clear))
  (import "interpreter" "PyErr_ExceptionMatches" (func $failed_with (param i32) (result i32)))
  (import "interpreter" "PyErr_SetString" (func $raise (param i32 i32)))
  (import "interpreter" "stack_pointer" (global $sp (mut i32)))
  (import "original" "array_empty" (func $empty (param i32 i32 i32 i32) (result i32)))
  (import "original" "array_empty_like" (func $empty_like (param i32 i32 i32 i32) (result i32)))
  (import "interpreter" "_Py_Dealloc" (func $dealloc (param i32)))
@IMPORTS@
  (func $release (param $o i32)
    (local $n i32)
    (local.set $n (i32.load (local.get $o)))
    (if (i32.le_s (local.get $n) (i32.const 1073741823))
      (then
        (i32.store (local.get $o) (local.tee $n (i32.sub (local.get $n) (i32.const 1))))
        (if (i32.eqz (local.get $n)) (then (call $dealloc (local.get $o)))))))

  (func $may_narrow (param $o i32) (result i32)
    (if (i32.eqz (local.get $o)) (then (return (i32.const 0))))
    (if (i32.ne (i32.load offset=4 (local.get $o)) (i32.const 26443132))
      (then (if (i32.eqz (call $subtype (i32.load offset=4 (local.get $o)) (i32.const 26443132)))
        (then (return (i32.const 0))))))
    (i32.eq (i32.load offset=16 (i32.load offset=28 (local.get $o))) (i32.const 9)))

  ;; A copy of 32 bits, in which every number must fit. One that may be written to is given back when it goes.
  (func $narrowed (param $o i32) (result i32)
    (local $copy i32)
    (local.set $copy (call $from_array (local.get $o) (call $descr (i32.const 7))
      (select (i32.const 0x2010) (i32.const 0x10)
        (i32.and (i32.load offset=32 (local.get $o)) (i32.const 0x400)))))
    (if (i32.eqz (local.get $copy))
      (then (if (call $failed_with (i32.load (i32.const 26079528))) (then (call $refuse)))))
    (local.get $copy))

@REFUSAL@
  ;; `np.empty` of 64-bit integers holds zeros, so that what nobody has written yet fits.
  (func $zeroed (param $o i32) (result i32)
    (local $size i32) (local $axis i32)
    (if (call $may_narrow (local.get $o))
      (then
        (local.set $size (i32.const 8))
        (local.set $axis (i32.load offset=12 (local.get $o)))
        (block $done (loop $next
          (br_if $done (i32.eqz (local.get $axis)))
          (local.set $axis (i32.sub (local.get $axis) (i32.const 1)))
          (local.set $size (i32.mul (local.get $size) (i32.load (i32.add (i32.load offset=16 (local.get $o))
            (i32.shl (local.get $axis) (i32.const 2))))))
          (br $next)))
        (memory.fill (i32.load offset=8 (local.get $o)) (i32.const 0) (local.get $size))))
    (local.get $o))
  (func (export "array_empty") (param i32 i32 i32 i32) (result i32)
    (call $zeroed (call $empty (local.get 0) (local.get 1) (local.get 2) (local.get 3))))
  (func (export "array_empty_like") (param i32 i32 i32 i32) (result i32)
    (call $zeroed (call $empty_like (local.get 0) (local.get 1) (local.get 2) (local.get 3))))
@WRAPPERS@
)
