#include "textflag.h"

// SPREAD fills a register with one byte.
#define SPREAD(byte, x, y) \
	MOVL $byte, AX         \
	MOVQ AX, x             \
	VPBROADCASTB x, y

// FIND compares the 64 bytes in Y4 and Y5 with a byte, and stores one bit for each.
#define FIND(y, offset)    \
	VPCMPEQB y, Y4, Y6     \
	VPCMPEQB y, Y5, Y7     \
	VPMOVMSKB Y6, AX       \
	VPMOVMSKB Y7, BX       \
	SHLQ $32, BX           \
	ORQ BX, AX             \
	MOVQ AX, offset(DI)

// func findAVX2(p *byte, into *masks, n int)
TEXT ·findAVX2(SB), NOSPLIT, $0-24
	MOVQ p+0(FP), SI
	MOVQ into+8(FP), DI
	MOVQ n+16(FP), CX
	SPREAD(0x22, X0, Y0) // quote
	SPREAD(0x2c, X1, Y1) // comma
	SPREAD(0x0a, X2, Y2) // line feed
	SPREAD(0x0d, X3, Y3) // carriage return

block:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	FIND(Y0, 0)
	FIND(Y1, 8)
	FIND(Y2, 16)
	FIND(Y3, 24)
	ADDQ $64, SI
	ADDQ $32, DI
	DECQ CX
	JNZ block
	VZEROUPPER
	RET
