;; Arrays of 64-bit integers for extensions that ask for 32-bit indices. Layouts as in integers.wat; flags at 32.
(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "PyArray_DescrFromType" (func $descr (param i32) (result i32)))
  (import "interpreter" "PyArray_FromArray" (func $from_array (param i32 i32 i32) (result i32)))
  (import "interpreter" "PyType_IsSubtype" (func $subtype (param i32 i32) (result i32)))
  (import "interpreter" "PyErr_Clear" (func $clear))
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

  ;; A copy of 32 bits. One that may be written to is given back when it goes, and may hold anything at first, as
  ;; `np.empty` does; of one that is only read every number must fit.
  (func $narrowed (param $o i32) (result i32)
    (if (i32.and (i32.load offset=32 (local.get $o)) (i32.const 0x400))
      (then (return (call $from_array (local.get $o) (call $descr (i32.const 5)) (i32.const 0x2010)))))
    (call $from_array (local.get $o) (call $descr (i32.const 7)) (i32.const 0x10)))
@WRAPPERS@
)
