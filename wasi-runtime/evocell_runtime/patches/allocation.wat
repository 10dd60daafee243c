;; Short lists of freed memory in front of malloc, one for each size of piece.
(module
  (import "interpreter" "memory" (memory 0))
  (import "interpreter" "dlmalloc" (func $dlmalloc (param i32) (result i32)))
  (import "interpreter" "dlfree" (func $dlfree (param i32)))
  (import "original" "PyObject_Malloc" (func $object_malloc (param i32) (result i32)))
  (import "original" "PyObject_Free" (func $object_free (param i32)))
  (import "original" "PyMem_Malloc" (func $memory_malloc (param i32) (result i32)))
  (import "original" "PyMem_Free" (func $memory_free (param i32)))

  ;; Give every piece that is in a list back to malloc.
  (func $drain
    (local $list i32) (local $piece i32)
    (loop $lists
      (local.set $list (i32.add (local.get $list) (i32.const 8)))
      (block $empty
        (loop $pieces
          (br_if $empty (i32.eqz (local.tee $piece (i32.load offset=@LISTS (local.get $list)))))
          (i32.store offset=@LISTS (local.get $list) (i32.load offset=4 (local.get $piece)))
          (i32.store offset=@COUNTS (local.get $list)
            (i32.sub (i32.load offset=@COUNTS (local.get $list)) (i32.const 1)))
          (call $dlfree (local.get $piece))
          (br $pieces)))
      (br_if $lists (i32.lt_u (local.get $list) (i32.const @LAST)))))

  ;; What malloc does for a size of which no piece is in a list; at the end of memory, all lists are given back first.
  (func $allocate (export "evocell.allocate") (param $size i32) (result i32)
    (local $piece i32)
    (if (result i32) (local.tee $piece (call $dlmalloc (local.get $size)))
      (then (local.get $piece))
      (else (call $drain) (call $dlmalloc (local.get $size)))))

  (func (export "malloc") (param $size i32) (result i32)
    (local $list i32)
    @MALLOC)
  (func (export "free") (param $piece i32)
    (local $list i32) (local $count i32)
    @FREE)
  (func (export "PyObject_Malloc") (param $size i32) (result i32)
    (local $list i32)
    (if (i32.ne (i32.load (i32.const @OBJECT_MALLOC)) (i32.const @RAW_MALLOC))
      (then (return (call $object_malloc (local.get $size)))))
    @MALLOC)
  (func (export "PyObject_Free") (param $piece i32)
    (local $list i32) (local $count i32)
    (if (i32.ne (i32.load (i32.const @OBJECT_FREE)) (i32.const @RAW_FREE))
      (then (call $object_free (local.get $piece)) (return)))
    @FREE)
  (func (export "PyMem_Malloc") (param $size i32) (result i32)
    (local $list i32)
    (if (i32.ne (i32.load (i32.const @MEMORY_MALLOC)) (i32.const @RAW_MALLOC))
      (then (return (call $memory_malloc (local.get $size)))))
    @MALLOC)
  (func (export "PyMem_Free") (param $piece i32)
    (local $list i32) (local $count i32)
    (if (i32.ne (i32.load (i32.const @MEMORY_FREE)) (i32.const @RAW_FREE))
      (then (call $memory_free (local.get $piece)) (return)))
    @FREE)
)
