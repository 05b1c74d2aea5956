# The launcher of a standalone executable for x86-64; what it is for stands in standalone.ts.
#
# `as launcher-x86-64.s` makes the bytes that stand in machine-code.ts; a test compares them. It is position
# independent and stateless: everything it knows and remembers is in the table one TABLE_BYTES before it.

        .intel_syntax noprefix
        .set    TABLE_BYTES, 0x10000
        .set    PROGRAM_HEADERS, 0              # table: what the kernel would have said of the program
        .set    PROGRAM_HEADER_COUNT, 8
        .set    LOADER_BASE, 16
        .set    LOADER_ENTRY, 24
        .set    PROGRAM_ENTRY, 32
        .set    GETATTR_SLOT, 40                # where the program keeps its pointer to pthread_getattr_np
        .set    GETATTR_OF_LIBC, 48             # state: what stood there
        .set    FIRST_STACK, 56                 # state: the stack pointer at the start
        .set    FILE_NAME, 64                   # state: AT_EXECFN, close to the stack's end
        .set    LIBRARIES, 72                   # of each: name, address, length; ends with a 0
        .set    LIBRARY_BYTES, 24
        .set    STACK_BYTES_MAX, 8 << 20

base:
        .set    table, base - TABLE_BYTES
        .long   start - base, open - base, entered - base, attributes - base

# The kernel starts the program here. It mapped the loader too, as a part of the program, but does not know
# that it is one: the auxiliary vector is made what it would be had the kernel loaded it as interpreter.
start:  mov     [rip + table + FIRST_STACK], rsp
        mov     rcx, [rsp]
        lea     rdi, [rsp + rcx * 8 + 16]       # the environment, after the count, the words and a 0
1:      mov     rax, [rdi]
        add     rdi, 8
        test    rax, rax
        jnz     1b
2:      mov     rax, [rdi]                      # type and value of each entry
        mov     rcx, [rip + table + PROGRAM_HEADERS]
        cmp     rax, 3                          # AT_PHDR
        je      3f
        mov     rcx, [rip + table + PROGRAM_HEADER_COUNT]
        cmp     rax, 5                          # AT_PHNUM
        je      3f
        mov     rcx, [rip + table + LOADER_BASE]
        cmp     rax, 7                          # AT_BASE
        je      3f
        lea     rcx, [rip + entered]
        cmp     rax, 9                          # AT_ENTRY
        je      3f
        mov     rcx, [rdi + 8]
        cmp     rax, 31                         # AT_EXECFN
        jne     3f
        mov     [rip + table + FILE_NAME], rcx
3:      mov     [rdi + 8], rcx
        add     rdi, 16
        test    rax, rax                        # AT_NULL, whose value means nothing
        jnz     2b
        jmp     [rip + table + LOADER_ENTRY]

# Stands for the loader's system calls `openat(rdi, rsi, edx, r10)` and changes what they change: rax, rcx, r11.
# A library that we carry, by the last part of its path, is answered with a file in memory that holds it.
open:   push    rbx
        push    rbp
        push    rdi
        push    rsi
        push    rdx
        push    r8
        mov     rbp, rsi
        mov     rax, rsi
1:      mov     cl, [rax]
        inc     rax
        cmp     cl, '/'
        jne     2f
        mov     rbp, rax                        # what follows the last slash so far
2:      test    cl, cl
        jnz     1b
        lea     rbx, [rip + table + LIBRARIES]
3:      mov     rdi, [rbx]
        test    rdi, rdi
        jz      9f                              # none of ours
        mov     rax, rbp
4:      mov     cl, [rax]
        cmp     cl, [rdi]
        jne     8f
        inc     rax
        inc     rdi
        test    cl, cl
        jnz     4b
        mov     rdi, [rbx]
        mov     esi, 9                          # MFD_CLOEXEC | MFD_NOEXEC_SEAL
        mov     eax, 319                        # memfd_create
        syscall
        test    eax, eax
        jns     5f
        mov     esi, 1                          # MFD_CLOEXEC: before Linux 6.3
        mov     eax, 319
        syscall
        test    eax, eax
        js      7f
5:      mov     r8d, eax
        mov     rsi, [rbx + 8]
        mov     rdx, [rbx + 16]
6:      mov     edi, r8d
        mov     eax, 1                          # write
        syscall
        test    rax, rax
        jle     10f
        add     rsi, rax
        sub     rdx, rax
        jnz     6b
        mov     edi, r8d
        xor     esi, esi
        xor     edx, edx                        # SEEK_SET
        mov     eax, 8                          # lseek: the loader reads from the beginning
        syscall
        mov     rdi, [rbx + 8]
        mov     rsi, [rbx + 16]
        mov     edx, 4                          # MADV_DONTNEED: the copy is what will be used
        mov     eax, 28                         # madvise
        syscall
        mov     eax, r8d
7:      pop     r8
        pop     rdx
        pop     rsi
        pop     rdi
        pop     rbp
        pop     rbx
        ret
8:      add     rbx, LIBRARY_BYTES
        jmp     3b
9:      mov     rdi, [rsp + 24]                 # as pushed
        mov     eax, 257                        # openat
        syscall
        jmp     7b
10:     mov     rbp, rax
        mov     edi, r8d
        mov     eax, 3                          # close
        syscall
        mov     rax, rbp
        jmp     7b

# The loader enters the program here, everything loaded and linked; rdx and the stack are the program's.
entered:
        mov     rax, [rip + table + GETATTR_SLOT]
        mov     rcx, [rax]
        mov     [rip + table + GETATTR_OF_LIBC], rcx
        lea     rcx, [rip + attributes]
        mov     [rax], rcx
        jmp     [rip + table + PROGRAM_ENTRY]

# Stands for pthread_getattr_np(rdi, rsi). Of the first thread libc reads /proc/self/maps to know the stack;
# where there is no /proc it fails, and Bun ends. Libc's answer is taken where it has one, else one is made.
attributes:
        push    rsi
        sub     rsp, 16
        call    [rip + table + GETATTR_OF_LIBC]
        mov     rcx, [rip + table + GETATTR_SLOT]
        lea     rdx, [rip + attributes]
        mov     r8, [rcx]
        cmp     r8, rdx
        je      1f
        mov     [rip + table + GETATTR_OF_LIBC], r8 # the first call made the loader put it there
        mov     [rcx], rdx
1:      mov     r8d, eax
        test    eax, eax
        jz      3f
        mov     eax, 39                         # getpid
        syscall
        mov     r9d, eax
        mov     eax, 186                        # gettid
        syscall
        cmp     eax, r9d
        jne     3f                              # another thread: whatever failed, it was not this
        mov     edi, 3                          # RLIMIT_STACK
        mov     rsi, rsp
        mov     eax, 97                         # getrlimit
        syscall
        test    eax, eax
        jnz     3f
        mov     rdx, [rsp]
        mov     eax, STACK_BYTES_MAX
        cmp     rdx, rax
        cmova   rdx, rax
        mov     rsi, [rsp + 16]
        mov     rcx, [rip + table + FIRST_STACK]
        or      rcx, 4095
        inc     rcx                             # end of the stack, as libc rounds it
        add     rdx, rcx
        sub     rdx, [rip + table + FILE_NAME]
        sub     rdx, 8192                       # the limit counts words, environment and this name too
        and     rdx, -4096
        xor     eax, eax
        mov     [rsi], rax                      # struct pthread_attr: scheduling
        mov     [rsi + 8], rax                  # flags
        mov     [rsi + 16], rax                 # guard
        mov     [rsi + 24], rcx                 # end of the stack
        mov     [rsi + 32], rdx                 # its length
        mov     [rsi + 40], rax
        mov     [rsi + 48], rax
        xor     r8d, r8d
3:      mov     eax, r8d
        add     rsp, 24
        ret
