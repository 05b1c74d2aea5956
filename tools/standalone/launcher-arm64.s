// The launcher of a standalone executable for arm64; what it is for stands in standalone.ts.
//
// `as launcher-arm64.s` makes the bytes that stand in machine-code.ts; a test compares them. It is position
// independent and stateless: everything it knows and remembers is in the table one TABLE_BYTES before it.

        .set    TABLE_BYTES, 0x10000
        .set    PROGRAM_HEADERS, 0              // table: what the kernel would have said of the program
        .set    PROGRAM_HEADER_COUNT, 8
        .set    LOADER_BASE, 16
        .set    LOADER_ENTRY, 24
        .set    PROGRAM_ENTRY, 32
        .set    GETATTR_SLOT, 40                // where the program keeps its pointer to pthread_getattr_np
        .set    GETATTR_OF_LIBC, 48             // state: what stood there
        .set    FIRST_STACK, 56                 // state: the stack pointer at the start
        .set    FILE_NAME, 64                   // state: AT_EXECFN, close to the stack's end
        .set    LIBRARIES, 72                   // of each: name, address, length; ends with a 0
        .set    LIBRARY_BYTES, 24
        .set    STACK_BYTES_MAX, 8 << 20

base:
        .set    table, base - TABLE_BYTES
        .long   start - base, open - base, entered - base, attributes - base

// The kernel starts the program here. It mapped the loader too, as a part of the program, but does not know
// that it is one: the auxiliary vector is made what it would be had the kernel loaded it as interpreter.
start:  adr     x9, table
        mov     x10, sp
        str     x10, [x9, FIRST_STACK]
        ldr     x11, [x10]
        add     x10, x10, x11, lsl 3
        add     x10, x10, 16                    // the environment, after the count, the words and a 0
1:      ldr     x11, [x10], 8
        cbnz    x11, 1b
2:      ldr     x11, [x10]                      // type and value of each entry
        ldr     x12, [x9, PROGRAM_HEADERS]
        cmp     x11, 3                          // AT_PHDR
        b.eq    3f
        ldr     x12, [x9, PROGRAM_HEADER_COUNT]
        cmp     x11, 5                          // AT_PHNUM
        b.eq    3f
        ldr     x12, [x9, LOADER_BASE]
        cmp     x11, 7                          // AT_BASE
        b.eq    3f
        adr     x12, entered
        cmp     x11, 9                          // AT_ENTRY
        b.eq    3f
        ldr     x12, [x10, 8]
        cmp     x11, 31                         // AT_EXECFN
        b.ne    3f
        str     x12, [x9, FILE_NAME]
3:      str     x12, [x10, 8]
        add     x10, x10, 16
        cbnz    x11, 2b                         // AT_NULL, whose value means nothing
        ldr     x11, [x9, LOADER_ENTRY]
        br      x11

// Stands for the loader's system calls `openat(x0, x1, w2, w3)` with 56 in x8 and changes what they change: x0.
// A library that we carry, by the last part of its path, is answered with a file in memory that holds it.
open:   stp     x1, x2, [sp, -80]!
        stp     x8, x9, [sp, 16]
        stp     x10, x11, [sp, 32]
        stp     x12, x13, [sp, 48]
        str     x0, [sp, 64]
        mrs     x13, nzcv
        str     x13, [sp, 72]
        mov     x9, x1
        mov     x10, x1
1:      ldrb    w11, [x10], 1
        cmp     w11, '/'
        csel    x9, x10, x9, eq                 // what follows the last slash so far
        cbnz    w11, 1b
        adr     x13, table
        add     x13, x13, LIBRARIES
3:      ldr     x12, [x13]
        cbz     x12, 9f                         // none of ours
        mov     x10, x9
4:      ldrb    w11, [x10], 1
        ldrb    w8, [x12], 1
        cmp     w11, w8
        b.ne    8f
        cbnz    w11, 4b
        ldr     x0, [x13]
        mov     x1, 9                           // MFD_CLOEXEC | MFD_NOEXEC_SEAL
        mov     x8, 279                         // memfd_create
        svc     0
        tbz     w0, 31, 5f
        ldr     x0, [x13]
        mov     x1, 1                           // MFD_CLOEXEC: before Linux 6.3
        svc     0
        tbnz    w0, 31, 7f
5:      mov     x10, x0
        ldp     x1, x2, [x13, 8]
6:      mov     x0, x10
        mov     x8, 64                          // write
        svc     0
        cmp     x0, 0
        b.le    10f
        add     x1, x1, x0
        subs    x2, x2, x0
        b.ne    6b
        mov     x0, x10
        mov     x1, 0
        mov     x2, 0                           // SEEK_SET
        mov     x8, 62                          // lseek: the loader reads from the beginning
        svc     0
        ldp     x0, x1, [x13, 8]
        mov     x2, 4                           // MADV_DONTNEED: the copy is what will be used
        mov     x8, 233                         // madvise
        svc     0
        mov     x0, x10
7:      ldr     x13, [sp, 72]
        msr     nzcv, x13
        ldp     x12, x13, [sp, 48]
        ldp     x10, x11, [sp, 32]
        ldp     x8, x9, [sp, 16]
        ldp     x1, x2, [sp], 80
        ret
8:      add     x13, x13, LIBRARY_BYTES
        b       3b
9:      ldr     x0, [sp, 64]
        mov     x8, 56                          // openat
        svc     0
        b       7b
10:     mov     x11, x0
        mov     x0, x10
        mov     x8, 57                          // close
        svc     0
        mov     x0, x11
        b       7b

// The loader enters the program here, everything loaded and linked; x0 and the stack are the program's.
entered:
        adr     x9, table
        ldr     x10, [x9, GETATTR_SLOT]
        ldr     x11, [x10]
        str     x11, [x9, GETATTR_OF_LIBC]
        adr     x11, attributes
        str     x11, [x10]
        ldr     x11, [x9, PROGRAM_ENTRY]
        br      x11

// Stands for pthread_getattr_np(x0, x1). Of the first thread libc reads /proc/self/maps to know the stack;
// where there is no /proc it fails, and Bun ends. Libc's answer is taken where it has one, else one is made.
attributes:
        stp     x29, x30, [sp, -48]!
        str     x1, [sp, 16]
        adr     x9, table
        ldr     x10, [x9, GETATTR_OF_LIBC]
        blr     x10
        adr     x9, table
        ldr     x10, [x9, GETATTR_SLOT]
        adr     x11, attributes
        ldr     x12, [x10]
        cmp     x11, x12
        b.eq    1f
        str     x12, [x9, GETATTR_OF_LIBC]      // the first call made the loader put it there
        str     x11, [x10]
1:      mov     w13, w0
        cbz     w0, 3f
        mov     x8, 172                         // getpid
        svc     0
        mov     w10, w0
        mov     x8, 178                         // gettid
        svc     0
        cmp     w0, w10
        b.ne    3f                              // another thread: whatever failed, it was not this
        mov     x0, 3                           // RLIMIT_STACK
        add     x1, sp, 32
        mov     x8, 163                         // getrlimit
        svc     0
        cbnz    w0, 3f
        ldr     x2, [sp, 32]
        mov     x3, STACK_BYTES_MAX
        cmp     x2, x3
        csel    x2, x3, x2, hi
        ldr     x1, [sp, 16]
        ldr     x3, [x9, FIRST_STACK]
        orr     x3, x3, 4095
        add     x3, x3, 1                       // end of the stack, as libc rounds it
        add     x2, x2, x3
        ldr     x4, [x9, FILE_NAME]
        sub     x2, x2, x4
        sub     x2, x2, 8192                    // the limit counts words, environment and this name too
        and     x2, x2, -4096
        stp     xzr, xzr, [x1]                  // struct pthread_attr: scheduling, flags
        str     xzr, [x1, 16]                   // guard
        stp     x3, x2, [x1, 24]                // end of the stack and its length
        stp     xzr, xzr, [x1, 40]
        str     xzr, [x1, 56]
        mov     w13, 0
3:      mov     w0, w13
        ldp     x29, x30, [sp], 48
        ret
