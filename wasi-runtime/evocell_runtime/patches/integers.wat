;; Index results become 64 bits wide where a program sees them.
;; Layouts are those of the pinned interpreter: PyArrayObject has its type at 4 and its descr at 28; a descr has its
;; type number at 16, a frame its code at 0 (with tag bits), the frame before it at 4 and its owner at 38, a code
;; object its file name at 80, a compact ASCII string its length at 8 and its characters at 20.
(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "PyArray_DescrFromType" (func $descr (param i32) (result i32)))
  (import "interpreter" "PyArray_CastToType" (func $cast (param i32 i32 i32) (result i32)))
  (import "interpreter" "PyType_IsSubtype" (func $subtype (param i32 i32) (result i32)))
  (import "interpreter" "PyErr_Clear" (func $clear))
  (import "interpreter" "_Py_Dealloc" (func $dealloc (param i32)))
  (import "interpreter" "PyTuple_SetItem" (func $set_item (param i32 i32 i32) (result i32)))
  (import "original" "PyArray_Scalar" (func $scalar (param i32 i32 i32) (result i32)))
  (import "original" "PyArray_CanCastArrayTo" (func $can_cast_array (param i32 i32 i32) (result i32)))
  (import "original" "prepare_index_noarray"
    (func $prepare_index (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "interpreter" "PyArray_FromArray" (func $from_array (param i32 i32 i32) (result i32)))
  (import "original" "PyArray_EinsteinSum"
    (func $einsum (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "interpreter" "PyArray_DTypeFromObject" (func $type_from_object (param i32 i32 i32) (result i32)))
  (import "original" "long_arrtype_new" (func $new_long (param i32 i32 i32) (result i32)))
  (import "original" "ulong_arrtype_new" (func $new_ulong (param i32 i32 i32) (result i32)))
  (import "interpreter" "longlong_arrtype_new" (func $new_longlong (param i32 i32 i32) (result i32)))
  (import "interpreter" "ulonglong_arrtype_new" (func $new_ulonglong (param i32 i32 i32) (result i32)))
  (import "interpreter" "_convert_from_any" (func $convert (param i32 i32) (result i32)))
  (import "interpreter" "stack_pointer" (global $sp (mut i32)))
@IMPORTS@

  (func $release (param $o i32)
    (local $n i32)
    (local.set $n (i32.load (local.get $o)))
    (if (i32.le_s (local.get $n) (i32.const 1073741823))
      (then
        (i32.store (local.get $o) (local.tee $n (i32.sub (local.get $n) (i32.const 1))))
        (if (i32.eqz (local.get $n)) (then (call $dealloc (local.get $o)))))))

  (func $is_index_array (param $o i32) (result i32)
    (if (i32.eqz (local.get $o)) (then (return (i32.const 0))))
    (if (i32.ne (i32.load offset=4 (local.get $o)) (i32.const 26443132))
      (then (if (i32.eqz (call $subtype (i32.load offset=4 (local.get $o)) (i32.const 26443132)))
        (then (return (i32.const 0))))))
    (i32.eq (i32.load offset=16 (i32.load offset=28 (local.get $o))) (i32.const 7)))

  ;; A new reference to an array: to the same, or, if it holds 32-bit indices, to a copy of 64 bits in its place.
  (func $widen_array (export "evocell.widen_array") (param $o i32) (result i32)
    (local $new i32)
    (if (i32.eqz (call $is_index_array (local.get $o))) (then (return (local.get $o))))
    (local.set $new (call $cast (local.get $o) (call $descr (i32.const 9)) (i32.const 0)))
    (if (i32.eqz (local.get $new)) (then (call $clear) (return (local.get $o))))
    (call $release (local.get $o))
    (local.get $new))

  ;; Whether the first Python code below, numpy's own left out, is a program's rather than a compiled library's.
  (func $asked_by_program (export "evocell.asked_by_program") (result i32)
    (local $frame i32) (local $name i32) (local $word i32)
    (local.set $frame (i32.load offset=56 (i32.load offset=27561516 (i32.const 0))))
    (block $program
      (loop $next
        (br_if $program (i32.eqz (local.get $frame)))
        (if (i32.le_s (i32.load8_s offset=38 (local.get $frame)) (i32.const 2))
          (then
            (local.set $name (i32.load offset=80 (i32.and (i32.load (local.get $frame)) (i32.const -2))))
            (br_if $program (i32.lt_s (i32.load offset=8 (local.get $name)) (i32.const 36)))
            (br_if $program (i64.ne (i64.load offset=20 align=4 (local.get $name)) (i64.const 0x636f6c2f7273752f)))
            (br_if $program (i64.ne (i64.load offset=28 align=4 (local.get $name)) (i64.const 0x702f62696c2f6c61)))
            (br_if $program (i64.ne (i64.load offset=36 align=4 (local.get $name)) (i64.const 0x3531336e6f687479)))
            (br_if $program (i32.ne (i32.load offset=44 (local.get $name)) (i32.const 0x70697a2e)))
            (local.set $word (i32.load offset=49 align=1 (local.get $name)))
            (if (i32.ne (local.get $word) (i32.const 0x706d756e)) ;; "nump"
              (then
                (return
                  (i32.eqz
                    (i32.or
                      (i32.or
                        (i32.eq (local.get $word) (i32.const 0x70696373))    ;; "scip"
                        (i32.eq (local.get $word) (i32.const 0x646e6170)))   ;; "pand"
                      (i32.or
                        (i32.eq (local.get $word) (i32.const 0x656c6b73))    ;; "skle"
                        (i32.eq (local.get $word) (i32.const 0x74617473)))))))))) ;; "stat", of statsmodels
        (local.set $frame (i32.load offset=4 (local.get $frame)))
        (br $next)))
    (i32.const 1))

  ;; What a function returns to Python, widened if a program asked.
  (func $widen (export "evocell.widen") (param $o i32) (result i32)
    (local $n i32) (local $at i32) (local $item i32)
    (if (i32.eqz (local.get $o)) (then (return (i32.const 0))))
    (if (i32.ne (i32.load (local.get $o)) (i32.const 1)) (then (return (local.get $o)))) ;; not made for this caller
    (if (call $is_index_array (local.get $o))
      (then
        (if (call $asked_by_program) (then (return (call $widen_array (local.get $o)))))
        (return (local.get $o))))
    (if (i32.and (i32.load offset=84 (i32.load offset=4 (local.get $o))) (i32.const 0x4000000)) ;; a tuple
      (then
        (if (i32.eqz (call $asked_by_program)) (then (return (local.get $o))))
        (local.set $n (i32.load offset=8 (local.get $o)))
        (block $done
          (loop $next
            (br_if $done (i32.ge_s (local.get $at) (local.get $n)))
            (local.set $item (i32.load offset=16 (i32.add (local.get $o) (i32.shl (local.get $at) (i32.const 2)))))
            (if (call $is_index_array (local.get $item))
              (then
                (i32.store (local.get $item) (i32.add (i32.load (local.get $item)) (i32.const 1)))
                (drop (call $set_item (local.get $o) (local.get $at) (call $widen_array (local.get $item))))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $next)))))
    (local.get $o))

  ;; Whether a type may be used for what takes indices, as 64-bit integers and what fits them may natively. What does
  ;; not fit 32 bits is refused by the cast itself.
  (func $index_cast (param $from i32) (param $to i32) (param $casting i32) (result i32)
    (local $type i32)
    (if (i32.lt_s (local.get $casting) (i32.const 2)) (then (return (i32.const 0))))
    (if (i32.ne (i32.load offset=16 (local.get $to)) (i32.const 7)) (then (return (i32.const 0))))
    (local.set $type (i32.load offset=16 (local.get $from)))
    (i32.or (i32.eq (local.get $type) (i32.const 9))
      (i32.or (i32.eq (local.get $type) (i32.const 6)) (i32.eq (local.get $type) (i32.const 8)))))

  (func (export "PyArray_CanCastArrayTo") (param $array i32) (param $to i32) (param $casting i32) (result i32)
    (if (call $index_cast (i32.load offset=28 (local.get $array)) (local.get $to) (local.get $casting))
      (then (return (i32.const 1))))
    (call $can_cast_array (local.get $array) (local.get $to) (local.get $casting)))

  (func $has_loop_of_64_bits (param $ufunc i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.load offset=44 (local.get $ufunc)))
    (local.set $end (i32.add (local.get $at)
      (i32.mul (i32.load offset=16 (local.get $ufunc)) (i32.load offset=32 (local.get $ufunc)))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 9)) (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; Whether a loop for indices may be taken for an operand: for one of 64 bits if the function has none for those.
  (func (export "evocell.loop_takes") (param $ufunc i32) (param $array i32) (param $wanted i32) (result i32)
    (if (i32.eqz (call $index_cast (i32.load offset=28 (local.get $array)) (local.get $wanted) (i32.const 2)))
      (then (return (i32.const 0))))
    (i32.eqz (call $has_loop_of_64_bits (local.get $ufunc))))

  (func (export "evocell.loop_fits") (param $ufunc i32) (param $array i32) (param $wanted i32) (result i32)
    (if (i32.eqz (call $index_cast (i32.load offset=28 (local.get $array)) (local.get $wanted) (i32.const 2)))
      (then (return (i32.const 1))))
    (i32.eqz (call $has_loop_of_64_bits (local.get $ufunc))))

  ;; Arrays among the indices of a[...] get the width of a pointer before they are used: the loops for those are
  ;; fast, and what does not fit is an error here. An index has its object at 0 and its kind at 8; arrays are kind 16.
  (func (export "prepare_index_noarray")
    (param i32 i32 i32) (param $indices i32) (param $count i32) (param i32 i32 i32 i32) (result i32)
    (local $kinds i32) (local $at i32) (local $end i32) (local $array i32) (local $narrow i32)
    (local.set $kinds (call $prepare_index (local.get 0) (local.get 1) (local.get 2) (local.get $indices)
      (local.get $count) (local.get 5) (local.get 6) (local.get 7) (local.get 8)))
    (if (i32.or (i32.lt_s (local.get $kinds) (i32.const 0)) (i32.eqz (i32.and (local.get $kinds) (i32.const 16))))
      (then (return (local.get $kinds))))
    (local.set $at (local.get $indices))
    (local.set $end (i32.add (local.get $at) (i32.mul (i32.load (local.get $count)) (i32.const 12))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $array (i32.load (local.get $at)))
        (if (i32.and (i32.eq (i32.load offset=8 (local.get $at)) (i32.const 16)) (i32.ne (local.get $array) (i32.const 0)))
          (then
            (if (i32.eq (i32.load offset=16 (i32.load offset=28 (local.get $array))) (i32.const 9))
              (then
                (local.set $narrow (call $from_array (local.get $array) (call $descr (i32.const 7)) (i32.const 0x10)))
                (if (i32.eqz (local.get $narrow))
                  (then
                    (call $release_all (local.get $indices) (local.get $end))
                    (return (i32.const -1))))
                (i32.store (local.get $at) (local.get $narrow))
                (call $release (local.get $array))))))
        (local.set $at (i32.add (local.get $at) (i32.const 12)))
        (br $next)))
    (local.get $kinds))

  (func $release_all (param $at i32) (param $end i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (if (i32.load (local.get $at)) (then (call $release (i32.load (local.get $at)))))
        (local.set $at (i32.add (local.get $at) (i32.const 12)))
        (br $next))))

  ;; The type in which `dot`, `inner` and `correlate` compute, found as `PyArray_DTypeFromObject` finds it.
  (func (export "evocell.operand_type") (param $object i32) (param $most i32) (param $place i32) (result i32)
    (local $status i32) (local $type i32)
    (local.set $status (call $type_from_object (local.get $object) (local.get $most) (local.get $place)))
    (local.set $type (i32.load (local.get $place)))
    (if (i32.ne (local.get $type) (i32.const 0))
      (then
        (if (i32.eq (i32.load offset=16 (local.get $type)) (i32.const 7))
          (then
            (i32.store (local.get $place) (call $descr (i32.const 9)))
            (call $release (local.get $type))))))
    (local.get $status))

  ;; `einsum` computes in the types of its operands, which are the caller's references to give up.
  (func (export "PyArray_EinsteinSum")
    (param $text i32) (param $count i32) (param $operands i32) (param i32 i32 i32 i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (local.get $operands))
    (local.set $end (i32.add (local.get $at) (i32.shl (local.get $count) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (i32.store (local.get $at) (call $widen_array (i32.load (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $next)))
    (call $einsum (local.get $text) (local.get $count) (local.get $operands)
      (local.get 3) (local.get 4) (local.get 5) (local.get 6)))

  ;; np.intp(5) is a 64-bit scalar.
  (func (export "long_arrtype_new") (param $type i32) (param $args i32) (param $keywords i32) (result i32)
    (if (i32.eq (local.get $type) (i32.const 26435440))
      (then (return (call $new_longlong (i32.const 26435652) (local.get $args) (local.get $keywords)))))
    (call $new_long (local.get $type) (local.get $args) (local.get $keywords)))

  (func (export "ulong_arrtype_new") (param $type i32) (param $args i32) (param $keywords i32) (result i32)
    (if (i32.eq (local.get $type) (i32.const 26436500))
      (then (return (call $new_ulonglong (i32.const 26436712) (local.get $args) (local.get $keywords)))))
    (call $new_ulong (local.get $type) (local.get $args) (local.get $keywords)))

  (func $for_programs (param $letter i32) (param $wide i32) (result i32)
    (if (call $asked_by_program) (then (return (local.get $wide))))
    (local.get $letter))

  ;; The type that a letter names: l and L are 64 bits wide.
  (func (export "evocell.letter") (param $letter i32) (result i32)
    (if (i32.eq (local.get $letter) (i32.const 108)) (then (return (i32.const 9))))
    (if (i32.eq (local.get $letter) (i32.const 76)) (then (return (i32.const 10))))
    ;; n, p, N and P are for programs, and have a pointer's width for compiled libraries
    (if (i32.or (i32.eq (local.get $letter) (i32.const 112)) (i32.eq (local.get $letter) (i32.const 110)))
      (then (return (call $for_programs (local.get $letter) (i32.const 9)))))
    (if (i32.or (i32.eq (local.get $letter) (i32.const 80)) (i32.eq (local.get $letter) (i32.const 78)))
      (then (return (call $for_programs (local.get $letter) (i32.const 10)))))
    (local.get $letter))

  ;; The type that a longer name stands for: intp and uintp are for programs, and have a pointer's width for libraries.
  (func (export "evocell.named_type") (param $kind i32) (param $align i32) (result i32)
    (local $type i32) (local $number i32)
    (local.set $type (call $convert (local.get $kind) (local.get $align)))
    (if (i32.eqz (local.get $type)) (then (return (i32.const 0))))
    (local.set $number (i32.load offset=16 (local.get $type)))
    (if (i32.ge_u (i32.sub (local.get $number) (i32.const 7)) (i32.const 2)) (then (return (local.get $type))))
    (if (i32.eqz (call $asked_by_program)) (then (return (local.get $type))))
    (call $release (local.get $type))
    (call $descr (i32.add (local.get $number) (i32.const 2))))

  ;; An element of an array of indices is a 64-bit scalar.
  (func (export "PyArray_Scalar") (param $data i32) (param $descr i32) (param $base i32) (result i32)
    (local $wide i32) (local $result i32)
    (if (i32.or (i32.ne (i32.load offset=16 (local.get $descr)) (i32.const 7))
                (i32.eq (i32.load8_u offset=14 (local.get $descr)) (i32.const 62)))
      (then (return (call $scalar (local.get $data) (local.get $descr) (local.get $base)))))
    (local.set $wide (call $descr (i32.const 9)))
    (global.set $sp (i32.sub (global.get $sp) (i32.const 16)))
    (i64.store (global.get $sp) (i64.load32_s align=1 (local.get $data)))
    (local.set $result (call $scalar (global.get $sp) (local.get $wide) (i32.const 0)))
    (global.set $sp (i32.add (global.get $sp) (i32.const 16)))
    (call $release (local.get $wide))
    (local.get $result))
@WRAPPERS@
)
